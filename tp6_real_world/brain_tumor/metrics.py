"""How good are masks and alarms? Dice per patient, detection of slices, intervals over patients.

An empty truth has no Dice: a patient without tumour in any slice is left out of the mean. Slices
without tumour count in the detection, where an alarm on them is a false one. Masks are (n, h, w)
bool, probabilities the same in float, `groups` (n,) int the patient of each slice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.05), 2)
"""What `choose_threshold` tries."""
TOP_SHARE = 1 / 512
"""Share of a slice's pixels whose mean decides whether there is a tumour: 32 of 128x128."""
SPECIFICITY = 0.9
"""At which sensitivity is told: one false alarm in ten slices without tumour."""


def overlap(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU of each patient from the same counts, all slices as one volume: (patients,).

    Patients are in the order of their numbers; NaN for one without tumour. Raises `ValueError`
    where the masks' shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of two shapes, {predicted.shape} and {truth.shape}")
    index = np.unique(groups, return_inverse=True)[1]
    both, true, positive = (
        np.bincount(index, mask.sum(axis=(1, 2))) for mask in (predicted & truth, truth, predicted)
    )
    with np.errstate(invalid="ignore"):
        dice = np.where(true > 0, 2 * both / (true + positive), np.nan)
        iou = np.where(true > 0, both / (true + positive - both), np.nan)
    return dice, iou


def choose_threshold(probabilities: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    """The one of `THRESHOLDS` with the highest mean Dice of patients; for validation patients."""
    means = [np.nanmean(overlap(probabilities > t, truth, groups)[0]) for t in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(means))])


def top_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the highest `TOP_SHARE` of each slice's values, (n, h, w) to (n,)."""
    flat = values.reshape(len(values), -1)
    count = max(1, round(TOP_SHARE * flat.shape[1]))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1, dtype=np.float64)


def slice_scores(probabilities: np.ndarray) -> np.ndarray:
    """How much a slice looks like one with a tumour, (n,), read off its mask of probabilities.

    The mean of the highest `TOP_SHARE` of the probabilities, as a logit: one pixel alone is noise,
    and all of them together are the tumour's size.
    """
    top = np.clip(top_mean(probabilities), 1e-7, 1 - 1e-7)
    return np.log(top / (1 - top))


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a slice with tumour scores above one without, ties by halves, 0..1.

    From ranks (Mann and Whitney 1947). NaN where one kind is missing.
    """
    truth = truth.astype(bool)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]  # of equal scores, their mean rank
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def cut_at_specificity(
    scores: np.ndarray, truth: np.ndarray, specificity: float = SPECIFICITY
) -> float:
    """The lowest score above which at most 1 - `specificity` of slices without tumour lie."""
    empty = np.sort(scores[~truth.astype(bool)])
    allowed = int(np.floor((1 - specificity) * len(empty) + 1e-9))
    return float(empty[len(empty) - allowed - 1]) if len(empty) else float("-inf")


def alarms(scores: np.ndarray, truth: np.ndarray, cut: float) -> tuple[float, float]:
    """Sensitivity and specificity of "score above `cut`", each in 0..1; NaN where there is none."""
    truth, alarm = truth.astype(bool), scores > cut
    found, quiet = int((alarm & truth).sum()), int((~alarm & ~truth).sum())
    with_tumour, without = int(truth.sum()), int((~truth).sum())
    return (
        found / with_tumour if with_tumour else float("nan"),
        quiet / without if without else float("nan"),
    )


def interval(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic(rows)`, where patients, not slices, are drawn.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. `statistic` gets
    the row numbers of the drawn patients; NaN (no tumour drawn) is left out. It is the luck of the
    patients tested, not of the training's seed.
    """
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    values = []
    for _ in range(draws):
        drawn = rng.integers(0, len(rows), len(rows))
        values.append(statistic(np.concatenate([rows[index] for index in drawn])))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
