"""What came out of a style transfer: images side by side, how the losses went, a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit import figures, results


def panel_figure(images: Sequence[np.ndarray], label: str) -> figures.Figure:
    """Content, style and result side by side; the title names the network."""
    figure, axes = figures.subplots(1, 3, size=(12, 3.6))
    for axis, image, title in zip(axes, images, ("content", "style", "result"), strict=True):
        axis.imshow(image[0])
        axis.axis("off")
        axis.set_title(title)
    figure.suptitle(f"features: {label}", fontsize=9, color="0.3")
    return figure


def curves_figure(
    history: dict[str, list[float]], style_weight: float, tv_weight: float
) -> figures.Figure:
    """The loss and its weighted parts against the step, with a line where the size changes."""
    weights = {"style_loss": style_weight, "total_variation": tv_weight}
    figure, axis = figures.subplots(size=(7, 4))
    steps = history["step"]
    for name in ("loss", "content_loss", "style_loss", "total_variation"):
        values = weights.get(name, 1) * np.array(history[name])
        if values.any():
            axis.plot(steps, values, label=name.replace("_", " "), marker="o", markersize=2)
    for index in np.flatnonzero(np.diff(history["size"])):
        axis.axvline(steps[index] + 0.5, color="0.6", linestyle="--")
    sizes = " → ".join(f"{size:.0f}" for size in dict.fromkeys(history["size"]))
    axis.set(xlabel="step", yscale="log", title=f"Weighted losses, {sizes} pixels")
    axis.legend()
    return figure


def largest_rise(history: dict[str, list[float]]) -> float:
    """Largest relative rise of the loss from one record to the next of the same size; 0 if none."""
    rises = [0.0]
    for index in range(1, len(history["loss"])):
        if history["size"][index] == history["size"][index - 1]:
            rises.append(history["loss"][index] / history["loss"][index - 1] - 1)
    return max(rises)


def table(metrics: dict[str, float]) -> str:
    """The result beside what an unchanged image gets, as a Markdown table."""
    lines = (
        ("style loss", "style_loss", "floor_style_loss_of_content", "content"),
        ("content loss", "content_loss", "floor_content_loss_of_style", "style"),
        ("SSIM against the content", "ssim_content", "floor_ssim_of_style", "style"),
    )
    rows = [[n, f"{metrics[m]:.4f}", f"{metrics[f]:.4f} ({image})"] for n, m, f, image in lines]
    beside = results.markdown_table(["", "result", "floor (the unchanged image)"], rows)
    return (
        f"{beside}\nLosses are shares of the target's own square: 0 is equal, 1 as far away as "
        "nothing at all."
    )
