"""Figures of masks on slices: who was found, who was not, and what the alarms are worth."""

from __future__ import annotations

import numpy as np

from labkit import figures
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import FLAIR, Slices

RIGHT, MISSED, FALSE = (0.0, 0.72, 0.53), (0.95, 0.65, 0.0), (0.86, 0.15, 0.5)
LEGEND = "Green: right. Orange: missed. Magenta: false alarm.\nAn exercise, no medical device."


def grey(images: np.ndarray) -> np.ndarray:
    """(n, h, w) of any range to 0..1, each from its 1st to its 99.5th percentile."""
    images = images.astype(np.float32)
    low, high = np.percentile(images, [1, 99.5], axis=(1, 2), keepdims=True)
    return np.clip((images - low) / np.maximum(high - low, 1e-6), 0, 1)


def overlay(images: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Images (n, h, w) in 0..1 with right, missed and false pixels coloured: (n, h, w, 3)."""
    shown = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
    for pixels, colour in (
        (predicted & truth, RIGHT),
        (~predicted & truth, MISSED),
        (predicted & ~truth, FALSE),
    ):
        shown[pixels] = 0.5 * shown[pixels] + 0.5 * np.array(colour, np.float32)
    return shown


def worst_slice(part: Slices, predicted: np.ndarray, group: int) -> int:
    """The row of a patient's slice with the most wrong pixels."""
    rows = np.flatnonzero(part.groups == group)
    wrong = (predicted[rows] ^ part.y[rows]).sum(axis=(1, 2))
    return int(rows[np.argmax(wrong)])


def patients_figure(part: Slices, predicted: np.ndarray, most: int = 16) -> figures.Figure:
    """Every patient, the worst Dice first: the slice with the most wrong pixels, without and with
    masks. Nothing is picked by hand."""
    dice, _ = measures.overlap(predicted, part.y, part.groups)
    groups = np.unique(part.groups)
    order = [index for index in np.argsort(np.nan_to_num(dice, nan=2.0))][:most]
    rows = np.array([worst_slice(part, predicted, groups[index]) for index in order])
    greys = grey(part.x[rows, ..., FLAIR])
    coloured = overlay(greys, predicted[rows], part.y[rows])
    pairs = np.concatenate([np.repeat(greys[..., None], 3, axis=-1), coloured], axis=2)
    titles = [
        f"{part.names[row]}\nDice of the patient {dice[index]:.2f}"
        for row, index in zip(rows, order, strict=True)
    ]
    figure = figures.image_grid(pairs, titles, columns=min(4, len(pairs)))
    figure.suptitle(f"Each patient's worst slice, worst patient first.\n{LEGEND}", fontsize=8)
    return figure


def false_alarms_figure(
    part: Slices, predicted: np.ndarray, scores: np.ndarray, cut: float, most: int = 4
) -> figures.Figure:
    """Slices without tumour that look most like one with, and slices with that look least so."""
    truth = part.has_tumour
    highest = [row for row in np.argsort(-scores) if not truth[row]][:most]
    lowest = [row for row in np.argsort(scores) if truth[row]][:most]
    rows = np.array([*highest, *lowest])
    coloured = overlay(grey(part.x[rows, ..., FLAIR]), predicted[rows], part.y[rows])
    titles = [
        f"{'with' if truth[row] else 'no'} tumour, "
        f"{'alarm' if scores[row] > cut else 'no alarm'}\n{part.names[row]}"
        for row in rows
    ]
    figure = figures.image_grid(coloured, titles, columns=most)
    figure.suptitle(
        f"Most suspicious empty slices, least suspicious tumours.\n{LEGEND}", fontsize=8
    )
    return figure


def dice_figure(
    part: Slices, predicted: np.ndarray, floors: dict[str, float], interval: tuple[float, float]
) -> figures.Figure:
    """Dice of each patient against the tumour's size; the mean, its interval and the floors."""
    dice, _ = measures.overlap(predicted, part.y, part.groups)
    size = [part.y[part.groups == group].sum() for group in np.unique(part.groups)]
    figure, axis = figures.subplots(size=(7, 4.4))
    axis.axhspan(*interval, color="C0", alpha=0.15, label="95 % interval of the mean")
    axis.axhline(np.nanmean(dice), color="C0", label=f"mean {np.nanmean(dice):.3f}")
    for index, (name, value) in enumerate(floors.items()):
        label = f"floor: {name.replace('_', ' ')} {value:.3f}"
        axis.axhline(value, color=f"C{index + 1}", linestyle="--", label=label)
    axis.plot(size, dice, "o", color="C0", label="a patient")
    axis.set(xscale="log", xlabel="tumour pixels in all slices", ylabel="Dice", ylim=(-0.03, 1.03))
    axis.set(title="Each test patient")
    axis.legend(fontsize=8)
    return figure


def roc_figure(scores: np.ndarray, truth: np.ndarray, cut: float, text: str) -> figures.Figure:
    """Sensitivity against false alarms of slices; the cut that validation chose is marked."""
    figure, axis = figures.subplots(size=(5, 4.6))
    cuts = np.concatenate([[np.inf], np.sort(scores)[::-1], [-np.inf]])
    rates = np.array([measures.alarms(scores, truth, each) for each in cuts])
    axis.plot(1 - rates[:, 1], rates[:, 0], label=text)
    sensitivity, specificity = measures.alarms(scores, truth, cut)
    axis.plot(1 - specificity, sensitivity, "o", color="C1", label="cut chosen on validation")
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="chance")
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity", title="Slices")
    axis.legend(fontsize=8, loc="lower right")
    return figure
