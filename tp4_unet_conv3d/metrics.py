"""How good is a mask? Dice and IoU for each image, contours, objects, probabilities.

The rule for empty masks, everywhere here: an image without target has no Dice and no IoU. It is
left out of every mean and counted apart, by whether the prediction stayed empty too. Counting it
as 1 would let an empty prediction score the share of empty images for nothing.

Keras metrics (`Dice`, `IoU`) follow training; the NumPy functions evaluate. Masks are (n, height,
width) bool, probabilities the same in float. Distances are in pixels.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from scipy import ndimage

THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.05), 2)
"""What `choose_threshold` tries."""
SMALL_AREA = 80
"""Objects below this many pixels are called small: a disc of up to five pixels' radius."""
FOUND_SHARE = 0.5
"""An object counts as found from this share of its pixels on, and as missed below."""
REACH = 5
"""How far around an object the prediction's pixels count as its own, pixels."""


# --- While training ------------------------------------------------------------------------------


class ImageMetric(keras.metrics.Metric):
    """The mean over images with a target, each weighted by its `sample_weight`."""

    def __init__(self, threshold: float | None = 0.5, name: str | None = None, **settings) -> None:
        """Predictions are cut at `threshold`, in 0..1; None: probabilities count as they are."""
        super().__init__(name=name or type(self).__name__.lower(), **settings)
        self.threshold = threshold
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(
        self,
        y_true: keras.KerasTensor,
        y_pred: keras.KerasTensor,
        sample_weight: keras.KerasTensor | None = None,
    ) -> None:
        """Add a batch: both (B, height, width, 1), or with a depth before it; weights (B,)."""
        y_true, y_pred = (
            ops.reshape(ops.cast(y, "float32"), (ops.shape(y)[0], -1)) for y in (y_true, y_pred)
        )
        if self.threshold is not None:
            y_pred = ops.cast(y_pred > self.threshold, "float32")
        both = ops.sum(y_true * y_pred, axis=1)
        size = ops.sum(y_true, axis=1)
        weight = ops.cast(size > 0, "float32")
        if sample_weight is not None:
            weight = weight * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        values = self.of_images(both, size, ops.sum(y_pred, axis=1))
        self.total.assign_add(ops.sum(weight * values))
        self.count.assign_add(ops.sum(weight))

    def result(self) -> keras.KerasTensor:
        """The mean so far, 0 before the first image with a target."""
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self) -> dict:
        """The threshold, for saving."""
        return super().get_config() | {"threshold": self.threshold}


@keras.saving.register_keras_serializable("tp4_metrics")
class Dice(ImageMetric):
    """2 |A and B| / (|A| + |B|) for each image (Dice, Ecology 1945); logged as `dice`."""

    def of_images(self, both, true, predicted):
        """(B,) in 0..1, from the sums over pixels of product, truth and prediction."""
        return ops.divide_no_nan(2 * both, true + predicted)


@keras.saving.register_keras_serializable("tp4_metrics")
class IoU(ImageMetric):
    """|A and B| / |A or B| for each image (Jaccard 1901); logged as `iou`."""

    def of_images(self, both, true, predicted):
        """(B,) in 0..1, from the sums over pixels of product, truth and prediction."""
        return ops.divide_no_nan(both, true + predicted - both)


# --- Regions -------------------------------------------------------------------------------------


def overlap(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU of each image, from the same counts: two arrays (n,), NaN without target.

    With `groups` (n,), integers from 0, all images of a group, such as the slices of a patient,
    are one volume: the arrays are (groups,).
    """
    if predicted.shape != truth.shape or predicted.dtype != bool or truth.dtype != bool:
        raise ValueError(
            f"two bool masks of one shape are needed, got {predicted.shape} {predicted.dtype} and "
            f"{truth.shape} {truth.dtype}"
        )
    groups = np.arange(len(truth)) if groups is None else groups
    count = int(groups.max()) + 1 if len(groups) else 0
    both, true, positive = (
        np.bincount(groups, mask.sum(axis=(1, 2)), count)
        for mask in (predicted & truth, truth, predicted)
    )
    with np.errstate(invalid="ignore"):
        dice = np.where(true > 0, 2 * both / (true + positive), np.nan)
        iou = np.where(true > 0, both / (true + positive - both), np.nan)
    return dice, iou


def choose_threshold(
    probabilities: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """The one of `THRESHOLDS` with the highest mean Dice; for validation images."""
    means = [np.nanmean(overlap(probabilities > t, truth, groups)[0]) for t in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(means))])


def kept_empty(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Images without target: in how many the prediction is empty too, and how many there are."""
    empty = ~truth.any(axis=(1, 2))
    return int((empty & ~predicted.any(axis=(1, 2))).sum()), int(empty.sum())


def bootstrap_interval(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (n,), NaN left out, by resampling.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13. Images or patients are drawn, so this is the luck of the test set, not of the
    training's seed.
    """
    values = values[~np.isnan(values)]
    index = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(np.mean(values[index], axis=1), [2.5, 97.5])
    return float(low), float(high)


# --- Contours ------------------------------------------------------------------------------------


def contour(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` (h, w) with one of their four neighbours, or the border, outside it."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each contour pixel of one mask to the nearest one of the other; neither is empty."""
    found, wanted = contour(predicted), contour(truth)
    to_wanted = ndimage.distance_transform_edt(~wanted)[found]
    to_found = ndimage.distance_transform_edt(~found)[wanted]
    return to_wanted, to_found


def boundary_f1(predicted: np.ndarray, truth: np.ndarray, tolerance: float = 2.0) -> np.ndarray:
    """Agreement of contours of each image, (n,): NaN without target, 0 for an empty prediction.

    Harmonic mean of the shares of either contour that lie within `tolerance` pixels of the other
    (Csurka et al., BMVC 2013).
    """
    wanted = truth.any(axis=(1, 2))
    scores = np.where(wanted, 0.0, np.nan)
    for index in np.flatnonzero(wanted & predicted.any(axis=(1, 2))):
        distances = _distances(predicted[index], truth[index])
        precision, recall = (np.mean(way <= tolerance) for way in distances)
        if precision + recall:
            scores[index] = 2 * precision * recall / (precision + recall)
    return scores


def hausdorff(predicted: np.ndarray, truth: np.ndarray, percentile: float = 95) -> np.ndarray:
    """Hausdorff distance of each image's contours, pixels, (n,): NaN where one is empty.

    The larger of the two directions' `percentile` of distances; 100 is the classical distance
    (Huttenlocher et al., PAMI 1993), 95 forgives the worst twentieth of either contour.
    """
    distances = np.full(len(truth), np.nan)
    for index in np.flatnonzero(predicted.any(axis=(1, 2)) & truth.any(axis=(1, 2))):
        both = _distances(predicted[index], truth[index])
        distances[index] = max(np.percentile(way, percentile) for way in both)
    return distances


# --- Objects -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objects:
    """The objects of all images, one row each."""

    area: np.ndarray
    """(objects,) pixels."""
    found: np.ndarray
    """(objects,) share of its pixels that the prediction has."""
    dice: np.ndarray
    """(objects,) against the prediction's pixels around it."""

    def missed(self, below: float = np.inf) -> tuple[int, int]:
        """How many objects of less than `below` pixels are missed, and how many there are."""
        chosen = self.area < below
        return int((chosen & (self.found < FOUND_SHARE)).sum()), int(chosen.sum())


def objects(predicted: np.ndarray, instances: np.ndarray) -> Objects:
    """Look at every object by itself; `instances` (n, h, w) int holds 0 or the object's number.

    An object's Dice takes those pixels of the prediction that are nearer to it than to any other
    object, and at most `REACH` pixels away: touching objects share no pixel, and a false alarm
    far away belongs to none.
    """
    rows = []
    for prediction, numbers in zip(predicted, instances, strict=True):
        if not numbers.any():
            continue
        far, nearest = ndimage.distance_transform_edt(numbers == 0, return_indices=True)
        owner = np.where(far <= REACH, numbers[tuple(nearest)], 0)
        most = int(numbers.max()) + 1
        area = np.bincount(numbers.ravel(), minlength=most)
        both = np.bincount(numbers[prediction], minlength=most)
        claimed = np.bincount(owner[prediction], minlength=most)
        for number in np.flatnonzero(area[1:]) + 1:
            dice = 2 * both[number] / (area[number] + claimed[number])
            rows.append((area[number], both[number] / area[number], dice))
    area, found, dice = np.array(rows, float).reshape(-1, 3).T
    return Objects(area.astype(int), found, dice)


def number_regions(masks: np.ndarray) -> np.ndarray:
    """Connected regions of each mask as its objects, (n, h, w) int32; diagonals connect."""
    corners = np.ones((3, 3))
    return np.stack([ndimage.label(mask, corners)[0] for mask in masks])


# --- Probabilities -------------------------------------------------------------------------------


def reliability(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin of probability: its mean, the share of target pixels, and the count, (bins,).

    Bins have equal width in 0..1; empty ones hold zeros.
    """
    values = probabilities.ravel().astype(float)
    index = np.clip((values * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    safe = np.maximum(count, 1)
    share = np.bincount(index, truth.ravel().astype(float), bins) / safe
    return np.bincount(index, values, bins) / safe, share, count


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Mean gap between probability and share of target, weighted by pixels, 0..1.

    Guo et al. (ICML 2017), equation 3, with the target's probability in place of confidence.
    """
    mean, share, count = reliability(probabilities, truth, bins)
    return float(np.sum(count * np.abs(mean - share)) / count.sum())
