"""Figures and report of `conv3d_analysis.py`.

An *outcome* is what one training found: its network's name, final metrics and history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit import figures
from labkit.results import in_words
from tp4_unet_conv3d.conv3d_cost import cost_table


def examples_figure(volumes: dict[str, np.ndarray]) -> figures.Figure:
    """Eight slices of each volume, and its maximum along depth in the colour of its depth."""
    import matplotlib
    from scipy.ndimage import gaussian_filter

    figure, axes = figures.subplots(len(volumes), 9, size=(14.5, 1.7 * len(volumes) + 0.3))
    for row, (title, volume) in zip(axes, volumes.items(), strict=True):
        last = len(volume) - 1
        depths = np.linspace(0.1 * last, 0.9 * last, 8).round().astype(int)
        for axis, depth in zip(row, depths, strict=False):
            axis.imshow(volume[depth], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"slice {depth}", fontsize=8, fontweight="normal")
        smooth = gaussian_filter(volume.astype(np.float32), 0.8)
        bright = smooth.max(axis=0) - np.percentile(smooth.max(axis=0), 30)
        bright = np.clip(bright / bright.max(), 0, 1)[..., None]
        colours = matplotlib.colormaps["turbo"](smooth.argmax(axis=0) / last)[..., :3]
        row[-1].imshow(colours * bright, interpolation="bicubic")
        row[-1].set_title("maximum along depth", fontsize=8, fontweight="normal")
        row[0].set_ylabel(title)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, last), "turbo")
    figure.colorbar(scale, ax=axes[:, -1], label="depth of the maximum (slice)", fraction=0.08)
    return figure


def curves_figure(outcomes: list[dict]) -> figures.Figure:
    """Training loss and validation accuracy of each network: mean and range over the seeds."""
    figure, axes = figures.subplots(1, 2, size=(11, 4.2))
    for metric, axis in zip(("loss", "val_accuracy"), axes, strict=True):
        for network in dict.fromkeys(outcome["network"] for outcome in outcomes):
            runs = [o["history"][metric] for o in outcomes if o["network"] == network]
            epochs = np.arange(1, len(runs[0]) + 1)
            axis.plot(epochs, np.mean(runs, axis=0), marker=".", label=network)
            axis.fill_between(epochs, np.min(runs, axis=0), np.max(runs, axis=0), alpha=0.15)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set(title="Training loss (running mean)", xlabel="epoch", ylabel="nats", yscale="log")
    axes[1].set(title="Validation accuracy", xlabel="epoch")
    axes[1].legend(fontsize=8)
    return figure


def percent(sample: Sequence[float]) -> str:
    """Shares in percent: `98.1 ± 0.3 % (n = 3)`."""
    return in_words([100 * value for value in sample], 1, " %")


def report(task: str, source: str, series: dict, floor_values: dict, rows: list) -> str:
    """The run's `report.md`: networks beside their floors, then memory and time."""
    columns = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_auc")
    networks = list(dict.fromkeys(name.partition("/")[0] for name in series))
    lines = "".join(
        f"| {network} | {series[f'{network}/parameters'][0]:,.0f} | "
        + " | ".join(percent(series[f"{network}/{column}"]) for column in columns)
        + f" | {np.mean(series[f'{network}/train_seconds']):.0f} |\n"
        for network in networks
    )
    beaten = "".join(
        f"- floor, {name.removeprefix('floor_').replace('_', ' ')}: {100 * value:.1f} % on test\n"
        for name, value in floor_values.items()
    )
    heads = [column.replace("_", " ") for column in columns]
    return (
        f"# Volumes against slices: {task}\n\nData: {source}. The weights of the lowest "
        f"validation loss are tested, once.\n\n"
        f"| network | parameters | {' | '.join(heads)} | seconds |\n| --- |{' --- |' * 6}\n"
        f"{lines}\n{beaten}\n## What a training step costs\n\n{cost_table(rows)}"
    )
