"""What needs no network: masks by thresholds, or the same mask for every image.

A floor's free values, such as a threshold, are chosen on validation images for the highest mean
Dice, by the same code that scores the network.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tp4_unet_conv3d.metrics import overlap

SCALES = (1.0, 2.0, 4.0)
"""Window sizes that `local_contrast` tries, standard deviations in pixels."""


def floor_masks(
    train_masks: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    test_images: np.ndarray,
) -> dict[str, np.ndarray]:
    """Each floor's masks for the test images, (n, h, w) bool.

    `validation` is images (n, h, w) float, masks (n, h, w) bool and groups (n,) int as in
    `metrics.overlap`.
    """
    images, masks, groups = validation
    shape = test_images.shape

    def mean_dice(predicted: np.ndarray) -> float:
        return float(np.nanmean(overlap(predicted, masks, groups)[0]))

    found = {"all_background": np.zeros(shape, bool)}

    frequency = train_masks.mean(axis=0)  # (h, w), 0 to 1
    constants = [frequency >= level for level in np.unique(np.linspace(0, frequency.max(), 40))]
    best = max(constants, key=lambda mask: mean_dice(np.broadcast_to(mask, masks.shape)))
    found["constant_mask"] = np.broadcast_to(best, shape)

    cut, _ = _best_cut(images, mean_dice)
    found["threshold"] = cut(test_images)

    sides = {True: _otsu_masks(images), False: ~_otsu_masks(images)}
    bright = max(sides, key=lambda side: mean_dice(sides[side]))
    found["otsu"] = _otsu_masks(test_images) == bright

    cuts = {scale: _best_cut(local_contrast(images, scale), mean_dice) for scale in SCALES}
    scale = max(cuts, key=lambda scale: cuts[scale][1])
    found["local_contrast"] = cuts[scale][0](local_contrast(test_images, scale))
    return found


def _best_cut(
    values: np.ndarray, mean_dice: Callable[[np.ndarray], float]
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """The cut above or below one value for all images with the highest mean Dice, and that."""
    spread = np.linspace(values.min(), values.max(), 33)
    candidates = np.unique([*np.percentile(values, range(0, 100, 4)), *spread])
    scored = [
        (mean_dice(values >= cut if above else values < cut), cut, above)
        for cut in candidates
        for above in (True, False)
    ]
    score, cut, above = max(scored)
    return lambda images: (images >= cut) == above, score


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
