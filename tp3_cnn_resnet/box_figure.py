"""The boxes of a detector drawn into their images."""

from __future__ import annotations

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.boxes import Detections
from tp3_cnn_resnet.shapes import CLASSES, SIZE


def boxes_figure(
    test: labkit.Part, raw: list[Detections], kept: list[Detections], count: int = 6
) -> figures.Figure:
    """The first test images: true boxes, all boxes found, and those left after suppression."""
    figure, axes = figures.subplots(3, count, size=(1.9 * count, 6.2))
    for column in range(count):
        rows = test.y[column]
        true = Detections(rows[:, :4], np.ones(len(rows)), rows[:, 4].astype(int))
        for axis, shown in zip(axes[:, column], (true, raw[column], kept[column]), strict=True):
            axis.imshow(test.x[column], extent=(0, SIZE, SIZE, 0))
            axis.set(xticks=[], yticks=[], autoscale_on=False)  # a box may reach out
            axis.grid(False)
            for box, score, label in zip(shown.boxes, shown.scores, shown.labels, strict=True):
                draw_box(axis, box, CLASSES[label] + ("" if shown is true else f" {score:.0%}"))
    for axis, label in zip(axes[:, 0], ("truth", "all cells' boxes", "suppressed"), strict=True):
        axis.set_ylabel(label)
    return figure


def draw_box(axis, box: np.ndarray, text: str) -> None:
    """A white frame with a black edge, and a word above it."""
    left, top, right, bottom = box
    xs, ys = (left, right, right, left, left), (top, top, bottom, bottom, top)
    axis.plot(xs, ys, color="black", linewidth=2.5)
    axis.plot(xs, ys, color="white", linewidth=1.2)
    axis.text(
        left, top - 0.7, text, fontsize=6, color="white",
        bbox={"facecolor": "black", "pad": 0.6, "linewidth": 0},
    )  # fmt: skip
