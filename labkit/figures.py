"""Figures that save themselves: no window, one look, the data source on each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = "matplotlib.figure.Figure"  # for annotations; Matplotlib loads at the first figure

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    # Okabe and Ito's colours, which colour-blind readers can tell apart.
    "axes.prop_cycle": "cycler('color', "
    "['0072B2', 'D55E00', '009E73', 'CC79A7', 'E69F00', '56B4E9'])",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.3,
}


def subplots(
    rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None
) -> tuple[Any, Any]:
    """A figure and its axes in the house style. Usage: `figure, axes = subplots(1, 2)`.

    `size` is in inches, 5 by 4 for each panel by default. Nothing is shown on a screen.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcdefaults()  # a user's matplotlibrc may ask for LaTeX, other fonts, other margins
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size or (5 * columns, 4 * rows))


def save(figure: "Figure", path: Path, source: str) -> Path:
    """Write `figure` as PNG, its data source in the corner. Usage: `save(fig, path, "sample")`."""
    import matplotlib.pyplot as plt

    figure.supxlabel(f"data: {source}", x=0.995, ha="right", fontsize=7, color="0.45")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def learning_curves(history: dict[str, list[float]], names: Sequence[str]) -> "Figure":
    """Training and validation curves, one panel a metric. Usage: `learning_curves(h, ["loss"])`."""
    figure, axes = subplots(1, len(names))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], marker="o", markersize=3, label="training (running mean)")
        if f"val_{name}" in history:
            axis.plot(epochs, history[f"val_{name}"], marker="o", markersize=3, label="validation")
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    return figure


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> "Figure":
    """Counts of (true, predicted) pairs, errors in colour. Usage: `confusion_matrix(c, "0123")`.

    `counts` is (classes, classes) int; the colour scale leaves the diagonal out, so that a good
    model's few errors show.
    """
    figure, axis = subplots(size=(6, 5.4))
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    axis.imshow(errors, cmap="Oranges")
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            if count:
                dark = true != predicted and count > 0.6 * errors.max()
                color = "white" if dark else "0.5" if true == predicted else "black"
                axis.text(predicted, true, count, ha="center", va="center", fontsize=8, color=color)
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_xticks(range(len(names)), labels=names)
    axis.set_yticks(range(len(names)), labels=names)
    if max(map(len, names)) > 3:  # words would overlap
        axis.tick_params("x", rotation=45)
        for label in axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axis.grid(False)
    axis.set_title("Confusion matrix (colour: errors only)")
    return figure


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 5) -> "Figure":
    """Pictures with a title each. Usage: `image_grid(x_test[:25], titles)`.

    `images` is (n, h, w) or (n, h, w, 3), wide ones too; `titles` may hold line breaks.
    """
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    tile = 1.5 * max(1.0, width / height)  # inches
    lines = [title.split("\n") for title in titles]
    longest = 0.065 * max(len(line) for title in lines for line in title)
    most = 0.16 * max(len(title) for title in lines)
    size = (
        columns * (max(tile, longest) + 0.2),
        rows * (tile * height / width + most + 0.15) + 0.2,
    )
    figure, axes = subplots(rows, columns, size=size)
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, image, title in zip(np.ravel(axes), images, titles, strict=False):
        axis.imshow(image, cmap="gray_r")
        axis.set_title(title, fontsize=8, fontweight="normal")
    return figure
