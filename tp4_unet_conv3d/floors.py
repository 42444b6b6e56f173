"""What needs no network: masks by thresholds, or the same mask for every image.

A floor's free values, such as a threshold, are chosen on validation images for the highest mean
Dice, by the same code that scores the network.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from labkit import Data
from tp4_unet_conv3d.metrics import overlap

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Window sizes that `local_contrast` tries, standard deviations in pixels."""


def floor_masks(data: Data) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Each floor's masks for the test images, (n, h, w) bool, and the values chosen for them.

    The parts of `data` are `SegmentationPart`s. Values are called `threshold_floor_<floor>`, or
    `..._above` (1 where the target lies above the threshold, 0 below) and `..._scale`.
    """
    images, masks, groups = data.validation.images, data.validation.masks, data.validation.groups
    test_images = data.test.images
    shape = test_images.shape

    def mean_dice(predicted: np.ndarray) -> float:
        return float(np.nanmean(overlap(predicted, masks, groups)[0]))

    found, chosen = {"all_background": np.zeros(shape, bool)}, {}

    frequency = data.train.masks.mean(axis=0)  # (h, w), 0 to 1
    level = max(
        np.unique(np.linspace(0, frequency.max(), 40)),
        key=lambda level: mean_dice(np.broadcast_to(frequency >= level, masks.shape)),
    )
    found["constant_mask"] = np.broadcast_to(frequency >= level, shape)
    chosen["constant_mask"] = level

    _, cut, above = _best_cut(images, mean_dice)
    found["threshold"] = (test_images >= cut) == above
    chosen |= {"threshold": cut, "threshold_above": above}

    bright = _otsu_masks(images)
    above = mean_dice(bright) >= mean_dice(~bright)
    found["otsu"] = _otsu_masks(test_images) == above
    chosen["otsu_above"] = above

    cuts = {scale: _best_cut(local_contrast(images, scale), mean_dice) for scale in SCALES}
    scale = max(cuts, key=lambda scale: cuts[scale][0])
    _, cut, above = cuts[scale]
    found["local_contrast"] = (local_contrast(test_images, scale) >= cut) == above
    chosen |= {"local_contrast": cut, "local_contrast_above": above, "local_contrast_scale": scale}
    return found, {f"threshold_floor_{name}": float(value) for name, value in chosen.items()}


def _best_cut(
    values: np.ndarray, mean_dice: Callable[[np.ndarray], float]
) -> tuple[float, float, bool]:
    """The highest mean Dice of one cut for all images; the cut; is the target above it?"""
    spread = np.linspace(values.min(), values.max(), 33)
    return max(
        (mean_dice((values >= cut) == above), float(cut), above)
        for cut in np.unique([*np.percentile(values, range(0, 100, 4)), *spread])
        for above in (True, False)
    )


def otsu(image: np.ndarray, bins: int = 256) -> float:
    """The threshold that parts the values best (Otsu, IEEE Trans. SMC 1979).

    It maximises the variance between the two classes of a histogram of `bins` bins.
    """
    counts, edges = np.histogram(image, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(float)  # pixels in the lower class, for each cut
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * (means[0] - means[1]) ** 2)])


def _otsu_masks(images: np.ndarray) -> np.ndarray:
    return np.stack([image >= otsu(image) for image in images])


def local_contrast(images: np.ndarray, scale: float) -> np.ndarray:
    """Standard deviation of brightness around each pixel, (n, h, w): the best hand-made texture.

    `scale` is the deviation of a Gaussian window, pixels.
    """
    window = (0, scale, scale)
    mean = ndimage.gaussian_filter(images, window)
    return np.sqrt(np.maximum(ndimage.gaussian_filter(images**2, window) - mean**2, 0))
