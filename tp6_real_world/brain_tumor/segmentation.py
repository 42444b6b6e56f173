"""What training, ablation and examination share: inputs, schedule, scores of masks and alarms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

import labkit
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import FLAIR, Slices
from tp6_real_world.brain_tumor.preparation import (
    Normalization,
    normalised,
    with_neighbours,
)

keras = labkit.lazy("keras")

Sequences = Literal["all", "flair"]
PEAK_RATE = 3e-3
"""Adam's learning rate after the first tenth of the training; it then falls to 0 as a cosine."""
BATCH_SIZE = 16


def inputs_of(
    part: Slices, normalization: Normalization, neighbours: int, sequences: Sequences
) -> np.ndarray:
    """What the network is given of a part: (n, size, size, channels) float32.

    Three sequences or FLAIR alone, normalised by patient, then FLAIR of the `neighbours` slices
    below and above.
    """
    images, flair = part.x, FLAIR
    if sequences == "flair":
        images, flair = images[..., FLAIR : FLAIR + 1], 0
    return with_neighbours(
        normalised(images, part.groups, normalization), part.groups, neighbours, flair
    )


def one_cycle(steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Up to `PEAK_RATE` in the first tenth of `steps` batches, then down to 0 as a cosine."""
    return keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 30, steps - steps // 10, warmup_target=PEAK_RATE, warmup_steps=steps // 10
    )


def restored(build: Callable[[], keras.Model], best: Path, seed: int) -> keras.Model:
    """The weights in the file `best` in a float32 network that `build` makes anew.

    So what is tested and saved doesn't depend on the precision of the training.
    """
    labkit.prepare(seed)
    twin = build()
    twin.load_weights(best)
    return twin


def probabilities_of(model: keras.Model, x: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """(n, h, w, c) to probabilities of tumour (n, h, w), the mean with the mirror image's."""
    found = 0.0
    for turn in (slice(None), slice(None, None, -1)):
        logits = model.predict(x[:, :, turn], batch_size=batch_size, verbose=0)[..., 0]
        found = found + 0.5 / (1 + np.exp(-logits[:, :, turn]))
    return found


# --- Choices, on validation patients -------------------------------------------------------------


def choose(probabilities: np.ndarray, part: Slices) -> dict[str, float]:
    """What is chosen on the validation part: threshold of a pixel, cut of a slice, calibration.

    `threshold` maximises the mean Dice of patients; `threshold_slice` is the score above which at
    most a tenth of the slices without tumour lie; `calibration_slope` and `_intercept` turn a
    slice's score into a probability (Platt 1999).
    """
    from sklearn.linear_model import LogisticRegression

    scores, truth = measures.slice_scores(probabilities), part.has_tumour
    threshold = measures.choose_threshold(probabilities, part.y, part.groups)
    fitted = LogisticRegression().fit(scores[:, None], truth)
    dice, _ = measures.overlap(probabilities > threshold, part.y, part.groups)
    return {
        "threshold": threshold,
        "threshold_slice": measures.cut_at_specificity(scores, truth),
        "calibration_slope": float(fitted.coef_[0, 0]),
        "calibration_intercept": float(fitted.intercept_[0]),
        "validation_dice": float(np.nanmean(dice)),
        "validation_slice_auroc": measures.auroc(scores, truth),
    }


def tumour_probability(scores: np.ndarray, chosen: dict[str, float]) -> np.ndarray:
    """Probability that there is a tumour in a slice, from its score and what `choose` found."""
    logits = chosen["calibration_slope"] * scores + chosen["calibration_intercept"]
    return 1 / (1 + np.exp(-logits))


# --- Scores --------------------------------------------------------------------------------------


def score(probabilities: np.ndarray, part: Slices, chosen: dict[str, float]) -> dict[str, float]:
    """All that is measured of probabilities (n, h, w), with the thresholds that are `chosen`.

    Dice and IoU are means over patients with a tumour; `slice_...` are about "is there tumour in
    this slice". `..._low` and `..._high` are 95 % intervals over patients.
    """
    predicted = probabilities > chosen["threshold"]
    dice, iou = measures.overlap(predicted, part.y, part.groups)
    known = dice[~np.isnan(dice)]
    metrics = {
        "dice": known.mean(),
        "dice_median": np.median(known),
        "dice_worst": known.min(),
        "iou": np.nanmean(iou),
        "patients": len(dice),
        "slices": len(part),
        "slices_with_tumour": part.has_tumour.sum(),
    }
    low, high = measures.interval(lambda rows: float(known[rows].mean()), np.arange(len(known)))
    metrics |= {"dice_low": low, "dice_high": high}
    scores, truth = measures.slice_scores(probabilities), part.has_tumour
    metrics |= detection(scores, truth, part.groups, chosen["threshold_slice"])
    brier = np.mean((tumour_probability(scores, chosen) - truth) ** 2)
    metrics["slice_brier"] = brier
    return {name: float(value) for name, value in metrics.items()}


def detection(
    scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, cut: float
) -> dict[str, float]:
    """Slices with tumour against those without: AUROC, and both rates at the chosen `cut`."""
    sensitivity, specificity = measures.alarms(scores, truth, cut)
    own_cut = measures.cut_at_specificity(scores, truth)
    low, high = measures.interval(lambda rows: measures.auroc(scores[rows], truth[rows]), groups)
    rates = {}
    for place, name in enumerate(("slice_sensitivity", "slice_specificity")):
        rates[f"{name}_low"], rates[f"{name}_high"] = measures.interval(
            lambda rows, place=place: measures.alarms(scores[rows], truth[rows], cut)[place], groups
        )
    return rates | {
        "slice_auroc": measures.auroc(scores, truth),
        "slice_auroc_low": low,
        "slice_auroc_high": high,
        "slice_sensitivity": sensitivity,
        "slice_specificity": specificity,
        "slice_sensitivity_at_specificity_0.9": measures.alarms(scores, truth, own_cut)[0],
    }
