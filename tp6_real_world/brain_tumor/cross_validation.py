"""Folds of pictures by group, the controls, the floors, and what all folds say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from labkit.files import obtain
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor import pictures
from tp6_real_world.brain_tumor.pictures import Pictures

FOLDS = 5
VALIDATION_SHARE = 8
"""One in eight of the pictures that are not tested watches the training."""
SMOKE_PICTURES = 60
PIXELS = 24
"""Side of the pictures that the floors are given: 576 numbers are enough for 170 examples."""
Control = Literal["network", "ungrouped", "random_labels", "masked_brain"]


@dataclass(frozen=True)
class PicturePart(labkit.Part):
    """Pictures `x` (n, size, size) uint8 and labels `y` (n,) int, 1 with a tumour."""

    rows: np.ndarray
    """(n,) int: their places in the whole set."""
    whole: Pictures
    """The set they are of."""


def load(
    choice: labkit.DataChoice = "auto",
    smoke: bool = False,
    seed: int = 0,
    control: Control = "network",
    data_dir: Path | None = None,
) -> labkit.Data:
    """The parts of fold `seed % 5` of repetition `seed // 5`, no group in two of them.

    `ungrouped` ignores the groups; `random_labels` deals the groups' labels out anew, other ones in
    each repetition; `masked_brain` blanks the middle. Leaves with exit code 2 where the set can't
    be had.
    """
    whole, source = _read(choice, smoke, data_dir)
    labels, images = whole.labels, whole.images
    if control == "random_labels":
        labels = dealt_anew(labels, whole.groups, seed // FOLDS)
    if control == "masked_brain":
        images = without_middle(images)
    groups = np.arange(len(labels)) if control == "ungrouped" else whole.groups
    parts = {
        name: PicturePart(images[rows], labels[rows], rows, whole)
        for name, rows in fold(labels, groups, seed).items()
    }
    return labkit.Data(source, **parts)


@lru_cache(maxsize=2)  # every fold asks for it
def _read(choice: str, smoke: bool, data_dir: Path | None) -> tuple[Pictures, str]:
    whole, source = obtain(pictures.ORIGIN, choice, pictures.read, pictures.sample, data_dir)
    if smoke:
        order = np.random.default_rng(0).permutation(len(whole.labels))
        rows = np.sort(order[:SMOKE_PICTURES])
        whole = Pictures(
            whole.images[rows][:, ::3, ::3], whole.labels[rows], whole.groups[rows],
            whole.names[rows], whole.given[rows], whole.copies,
        )  # fmt: skip
    return whole, source


def fold(labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Rows of train, validation and test of fold `seed % 5` of repetition `seed // 5`.

    Each part has about the same share of tumours, and each group is in one part alone.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    repetition, index = divmod(seed, FOLDS)
    outer = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repetition)
    rest, test = list(outer.split(labels, labels, groups))[index]
    inner = StratifiedGroupKFold(VALIDATION_SHARE, shuffle=True, random_state=seed)
    train, validation = next(inner.split(rest, labels[rest], groups[rest]))
    return {"train": rest[train], "validation": rest[validation], "test": test}


def dealt_anew(labels: np.ndarray, groups: np.ndarray, repetition: int) -> np.ndarray:
    """The labels of the groups, given to other groups by chance: copies keep one label."""
    names, first, index = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng([repetition, 1]).permutation(len(names))
    return labels[first][order][index]


def without_middle(images: np.ndarray) -> np.ndarray:
    """(n, s, s) with the ellipse blank that touches all four sides: the corners are left."""
    side = np.linspace(-1, 1, images.shape[1])
    inside = side[:, None] ** 2 + side[None, :] ** 2 <= 1
    return np.where(inside, 0, images)


def standardised(images: np.ndarray) -> np.ndarray:
    """(n, s, s) uint8 to (n, s, s, 1) float32, each with mean 0 and deviation 1."""
    images = images[..., None].astype(np.float32)
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) / np.maximum(images.std(axis=(1, 2), keepdims=True), 1.0)


# --- All folds together --------------------------------------------------------------------------


def out_of_fold(folders: Sequence[Path], groups: np.ndarray) -> dict[str, float]:
    """What the folds whose `predictions.npz` are in `folders` say together; intervals over groups.

    Accuracy is the share of right answers, each picture's averaged over repetitions; committee
    accuracy that of the mean of its logits (of random labels, which change with the repetition, it
    means nothing). AUROC compares pictures of one fold only: logits of two networks have no common
    scale.
    """
    stored = [np.load(folder / "predictions.npz") for folder in folders]
    logits = np.full((len(stored), len(groups)), np.nan)
    truth = np.full(logits.shape, np.nan)
    for place, file in enumerate(stored):
        logits[place, file["rows"]], truth[place, file["rows"]] = file["logits"], file["truth"]
    seen = np.flatnonzero(~np.isnan(logits).all(axis=0))
    right = np.where(np.isnan(logits), np.nan, (logits > 0) == truth)
    share = np.nanmean(right[:, seen], axis=0)

    def area(rows: np.ndarray) -> float:
        areas = []
        for scores, labels in zip(logits[:, seen[rows]], truth[:, seen[rows]], strict=True):
            there = ~np.isnan(scores)
            areas.append(measures.auroc(scores[there], labels[there]))
        return float(np.nanmean(areas)) if not np.isnan(areas).all() else np.nan

    everything = np.arange(len(seen))
    # A picture's networks together: none of them has seen a picture of its group.
    agreed = (np.nanmean(logits[:, seen], axis=0) > 0) == (np.nanmean(truth[:, seen], axis=0) > 0.5)
    low, high = measures.interval(lambda rows: float(share[rows].mean()), groups[seen])
    auroc_low, auroc_high = measures.interval(area, groups[seen], draws=300)
    sensitivity = []
    for scores, labels in zip(logits, truth, strict=True):
        there = ~np.isnan(scores)
        cut = measures.cut_at_specificity(scores[there], labels[there])
        sensitivity.append(measures.alarms(scores[there], labels[there], cut)[0])
    together = measures.interval(lambda rows: float(agreed[rows].mean()), groups[seen])
    return {
        "committee_accuracy": float(agreed.mean()),
        "committee_accuracy_low": together[0],
        "committee_accuracy_high": together[1],
        "accuracy": float(share.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "auroc": area(everything),
        "auroc_low": auroc_low,
        "auroc_high": auroc_high,
        "sensitivity_at_specificity_0.9": float(np.mean(sensitivity)),
        "pictures": len(seen),
        "groups": len(np.unique(groups[seen])),
    }


def floors(seeds: Sequence[int], whole: Pictures, smoke: bool) -> dict[str, float]:
    """Mean test figures over the same folds of what needs no network: `floor_...`.

    The majority; the mean brightness; logistic regression and a support vector machine on pixels,
    their strength chosen by grouped cross-validation inside each training fold.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    small = np.stack([_shrunk(image) for image in whole.images])
    pixels = standardised(small).reshape(len(small), -1)
    brightness = whole.images.mean(axis=(1, 2))[:, None]
    strengths = [1e-2, 1.0] if smoke else [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
    classifiers = {
        "brightness": (LogisticRegression(), brightness, strengths),
        "logistic_regression": (LogisticRegression(max_iter=2000), pixels, strengths),
        "support_vector_machine": (SVC(), pixels, [10 * each for each in strengths]),
    }  # fmt: skip
    found: dict[str, list[float]] = {}
    for seed in seeds:
        parts = fold(whole.labels, whole.groups, seed)
        rows = np.concatenate([parts["train"], parts["validation"]])
        y, truth = whole.labels[rows], whole.labels[parts["test"]]
        majority = np.mean(truth == np.round(y.mean()))
        found.setdefault("floor_majority", []).append(majority)
        for name, (classifier, x, grid) in classifiers.items():
            model = make_pipeline(StandardScaler(), classifier)
            step = model.steps[-1][0]
            inner = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
            search = GridSearchCV(model, {f"{step}__C": grid}, cv=inner)
            search.fit(x[rows], y, groups=whole.groups[rows])
            scores = search.decision_function(x[parts["test"]])
            found.setdefault(f"floor_{name}", []).append(np.mean((scores > 0) == truth))
            area = measures.auroc(scores, truth)
            found.setdefault(f"floor_{name}_test_auroc", []).append(area)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _shrunk(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((PIXELS, PIXELS), Image.Resampling.BOX))


def folds_figure(found: dict[str, dict[str, float]]) -> figures.Figure:
    """Accuracy and AUROC of each configuration with intervals over groups; chance is marked."""
    figure, axes = figures.subplots(1, 2, size=(10, 3.4))
    names = list(found)[::-1]
    for axis, (metric, title) in zip(
        axes, (("accuracy", "pictures right (%)"), ("auroc", "AUROC")), strict=True
    ):
        factor = 100 if metric == "accuracy" else 1
        for height, name in enumerate(names):
            ends = [factor * found[name][f"{metric}_{end}"] for end in ("low", "high")]
            axis.plot(ends, [height, height], color="C0", linewidth=2)
            axis.plot(factor * found[name][metric], height, "o", color="C0")
        if metric == "auroc":
            axis.axvline(0.5, color="0.6", linestyle=":", label="chance")
            axis.legend(fontsize=8)
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axis.set(title=title)
    figure.suptitle("95 % intervals over groups of copies", fontsize=9)
    return figure
