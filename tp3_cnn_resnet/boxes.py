"""Overlap, suppression and precision of boxes, in plain NumPy: what every detector needs.

References: Everingham et al., "The Pascal Visual Object Classes Challenge" (IJCV 2010), section
4.2, for matching by IoU and for average precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, in any order."""

    boxes: np.ndarray
    """(k, 4): left, top, right, bottom in pixels."""
    scores: np.ndarray
    """(k,) in 0..1."""
    labels: np.ndarray
    """(k,) class 0 to 2."""

    def only(self, chosen: np.ndarray) -> "Detections":
        """Those that the index or bool array names."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.labels[chosen])


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of boxes (k, 4) and (m, 4): (k, m) in 0..1."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.prod(np.clip(opposite - corner, 0, None), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (first, second)]
    return intersection / (areas[0][:, None] + areas[1][None] - intersection)


def suppress(found: Detections, most_overlap: float = 0.3) -> Detections:
    """Non-maximum suppression: surest first, keep what overlaps no kept box too much.

    `most_overlap` is an IoU, low as the shapes themselves don't overlap. Classes don't matter: a
    place has one shape.
    """
    overlaps = iou(found.boxes, found.boxes)
    kept: list[int] = []
    for index in np.argsort(-found.scores, kind="stable"):
        if not np.any(overlaps[index, kept] > most_overlap):
            kept.append(index)
    return found.only(np.array(kept, int))


def average_precision(
    found: Sequence[Detections], truth: Sequence[np.ndarray], threshold: float = 0.5
) -> float:
    """Area under precision against recall, 0..1, of boxes `found` for `truth` (boxes per image).

    Surest first, a box is right if its best true box, by IoU, has at least `threshold` and isn't
    taken yet; a second box for the same shape is wrong. Precision is made monotone, as in Pascal
    VOC since 2010.
    """
    each = [
        (s, i, box) for i, d in enumerate(found) for s, box in zip(d.scores, d.boxes, strict=True)
    ]
    taken = [np.zeros(len(boxes), bool) for boxes in truth]
    right = np.zeros(len(each), bool)
    for place, (_, image, box) in enumerate(sorted(each, key=lambda row: -row[0])):
        if len(truth[image]):
            overlaps = iou(box[None], truth[image])[0]
            best = overlaps.argmax()
            if overlaps[best] >= threshold and not taken[image][best]:
                taken[image][best] = right[place] = True
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_precision[right].sum() / sum(map(len, truth)))


def mean_iou(found: list[Detections], truth: list[np.ndarray]) -> float:
    """IoU of each true box with the best one found, on average; 0 where none was."""
    best = [iou(t, d.boxes).max(axis=1, initial=0) for t, d in zip(truth, found, strict=True)]
    return float(np.concatenate(best).mean())
