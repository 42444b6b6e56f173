"""What needs no network: thresholds, pixels and gradient boosting, the place of a slice.

A floor's free values are chosen on validation patients by the code that scores the network. The
strongest, gradient boosting on 26 features of each pixel, sees the same three sequences, their
surroundings at three scales, the other half of the brain and the slices above and below.
"""

from __future__ import annotations

import numpy as np

import labkit
from labkit import Data
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import FLAIR, Slices
from tp6_real_world.brain_tumor.preparation import normalised, with_neighbours

ndimage = labkit.lazy("scipy.ndimage")

LEAVES = (7, 15, 31, 63, 127)
"""Leaves of a tree that are tried."""
BLURS = (0.0, 1.0, 2.0, 4.0)
"""Smoothings of the mask of probabilities that are tried, deviations in 128ths of the side."""
TRAINING_PIXELS = 150_000
"""Drawn from the brains of the training patients; 0 outside them is no tumour for sure."""
ROUNDS = 150


def floors(data: Data, smoke: bool = False) -> dict[str, float]:
    """Test figures `floor_<name>` (Dice), `floor_<name>_iou`, `floor_<name>_slice_auroc`.

    And what was chosen for them: `threshold_floor_...`. The parts of `data` are `Slices`.
    """
    boosted, chosen = boosting(data, smoke)
    return simple_floors(data) | chosen | _cut("gradient_boosting", *boosted, data)


def simple_floors(data: Data) -> dict[str, float]:
    """The same without gradient boosting: brightness of FLAIR, the slice's place, its brain."""
    known, values = (
        normalised(part.x, part.groups, "zscore")[..., FLAIR]
        for part in (data.validation, data.test)
    )
    truth, brain = data.test.has_tumour, (values > 0).mean(axis=(1, 2))
    middle = -np.abs(places(data.test.groups) - 0.5)
    prevalence = data.train.has_tumour.mean()
    return _cut("threshold", known, values, data) | {
        "floor_brain_area_slice_auroc": measures.auroc(brain, truth),
        "floor_middle_slice_slice_auroc": measures.auroc(middle, truth),
        "floor_prevalence_slice_brier": float(np.mean((prevalence - truth) ** 2)),
    }


def _cut(name: str, known: np.ndarray, values: np.ndarray, data: Data) -> dict[str, float]:
    """Figures of "tumour where the value is above a cut" that is chosen on validation patients."""
    validation, test = data.validation, data.test
    cuts = np.unique(np.percentile(known[known > known.min()], np.linspace(50, 99.9, 60)))
    means = [
        np.nanmean(measures.overlap(known > cut, validation.y, validation.groups)[0])
        for cut in cuts
    ]
    cut = cuts[int(np.argmax(means))]
    dice, iou = measures.overlap(values > cut, test.y, test.groups)
    return {
        f"threshold_floor_{name}": float(cut),
        f"validation_floor_{name}_dice": float(max(means)),
        f"floor_{name}": float(np.nanmean(dice)),
        f"floor_{name}_iou": float(np.nanmean(iou)),
        f"floor_{name}_slice_auroc": measures.auroc(measures.top_mean(values), test.has_tumour),
    }


def places(groups: np.ndarray) -> np.ndarray:
    """Where in its patient's row a slice is, (n,) from 0, the lowest, to 1."""
    found = np.empty(len(groups))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        found[rows] = np.linspace(0, 1, len(rows)) if len(rows) > 1 else 0.5
    return found


def features(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Normalised sequences (n, h, w, 3) to 26 features of each pixel, (n, h, w, 26) float32."""
    side = images.shape[1]
    found = [images]
    for scale in (1.0, 2.0, 4.0):
        window = (0, scale * side / 128, scale * side / 128, 0)
        smooth = ndimage.gaussian_filter(images, window)
        found.append(smooth)
        if scale == 2.0:
            spread = ndimage.gaussian_filter(images**2, window) - smooth**2
            found.append(np.sqrt(np.maximum(spread, 0)))
            around = with_neighbours(smooth, groups, 1, FLAIR)[..., -2:]
            mirrored = smooth - smooth[:, :, ::-1]  # heads are nearly upright and in the middle
            found += [around, mirrored]
    wide = (0, 8 * side / 128, 8 * side / 128)
    found.append(ndimage.gaussian_filter(images[..., FLAIR], wide)[..., None])
    brain = images[..., FLAIR] > images[..., FLAIR].min(axis=(1, 2), keepdims=True) + 0.5
    depth = np.stack([ndimage.distance_transform_edt(each) for each in brain]) / side
    row, column = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    height = places(groups)[:, None, None]
    for plane in (depth, row, np.abs(column), height, brain.mean(axis=(1, 2), keepdims=True)):
        found.append(np.broadcast_to(plane, images.shape[:3])[..., None])
    return np.concatenate(found, axis=-1, dtype=np.float32)


def boosting(
    data: Data, smoke: bool = False
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]:
    """Probabilities (n, h, w) of validation and test slices, and the settings chosen for them.

    Histogram gradient boosting (scikit-learn) on pixels drawn from brains, with the number of
    leaves and the smoothing of the probabilities that are best for validation patients' Dice.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    images = {
        name: normalised(part.x, part.groups, "zscore")
        for name, part in (
            ("train", data.train), ("validation", data.validation), ("test", data.test)
        )
    }  # fmt: skip
    rng = np.random.default_rng(0)
    pixels = np.flatnonzero(brain_of(data.train))
    pixels = rng.choice(pixels, min(len(pixels), 2000 if smoke else TRAINING_PIXELS), replace=False)
    described = features(images["train"], data.train.groups)
    x, y = described.reshape(-1, described.shape[-1])[pixels], data.train.y.ravel()[pixels]
    del described
    validation = features(images["validation"], data.validation.groups)
    side, brain = validation.shape[1], brain_of(data.validation)
    best = (-1.0, None, 0, 0.0, None)
    for leaves in LEAVES[:2] if smoke else LEAVES:
        trees = HistGradientBoostingClassifier(
            max_iter=5 if smoke else ROUNDS, max_leaf_nodes=leaves, early_stopping=False,
            random_state=0,
        ).fit(x, y)  # fmt: skip
        raw = _predict(trees, validation, brain)
        for blur in BLURS[:2] if smoke else BLURS:
            smooth = ndimage.gaussian_filter(raw, (0, blur * side / 128, blur * side / 128))
            threshold = measures.choose_threshold(smooth, data.validation.y, data.validation.groups)
            dice, _ = measures.overlap(
                smooth > threshold, data.validation.y, data.validation.groups
            )
            if np.nanmean(dice) > best[0]:
                best = (np.nanmean(dice), trees, leaves, blur, smooth)
    _, trees, leaves, blur, known = best
    window = (0, blur * side / 128, blur * side / 128)
    test = _predict(trees, features(images["test"], data.test.groups), brain_of(data.test))
    chosen = {
        "chosen_floor_gradient_boosting_leaves": leaves,
        "chosen_floor_gradient_boosting_blur": blur,
    }
    return (known, ndimage.gaussian_filter(test, window)), chosen


def brain_of(part: Slices) -> np.ndarray:
    """(n, h, w) bool: where FLAIR is above a tenth of its patient's 99th percentile."""
    flair = part.x[..., FLAIR]
    found = np.empty(flair.shape, bool)
    for group in np.unique(part.groups):
        own = part.groups == group
        found[own] = flair[own] > 0.1 * np.percentile(flair[own], 99)
    return found


def _predict(trees: object, described: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Probability of each pixel, (n, h, w) float32: 0 outside the brain."""
    found = np.zeros(brain.shape, np.float32)
    found[brain] = trees.predict_proba(described[brain])[:, 1]
    return found
