"""Figures of predicted masks: best and worst, Dice by image and by size, calibration."""

from itertools import pairwise

import numpy as np

from labkit import figures
from labkit.results import markdown_table
from tp4_unet_conv3d import metrics as measures
from tp4_unet_conv3d.segmentation import SegmentationPart, overlay_figure

SIZES = (0, 40, 80, 160, 320, 640, np.inf)
"""Bin edges of object area, pixels."""


def extremes_figure(
    part: SegmentationPart, predictions: np.ndarray, dice: np.ndarray
) -> figures.Figure:
    """Images (n) with the three highest, three middle and three lowest `dice` (n,)."""
    order = np.argsort(-dice)[: np.isfinite(dice).sum()]  # best first, NaN left out
    middle = len(order) // 2
    chosen = [*order[:3], *order[max(0, middle - 1) : middle + 2], *order[-3:]]
    kinds = np.repeat(["best", "median", "worst"], 3)[: len(chosen)]
    titles = [f"{kind}: {dice[i]:.3f}\n#{i}" for kind, i in zip(kinds, chosen, strict=False)]
    rows = {"truth": part.masks, "U-Net": predictions}
    return overlay_figure(part, rows, chosen, titles)


def distribution_figure(
    dice: np.ndarray, floor_dice: dict[str, float], unit: str
) -> figures.Figure:
    """How many images or patients have which Dice (n,), with the mean and the floors' means."""
    figure, axis = figures.subplots(size=(7, 4))
    values = dice[np.isfinite(dice)]
    axis.hist(values, bins=np.linspace(0, 1, 41), color="C0", alpha=0.8, edgecolor="white")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.axvline(values.mean(), color="C0", linewidth=2, label=f"mean {values.mean():.3f}")
    axis.axvline(
        np.median(values), color="C0", linestyle="--", label=f"median {np.median(values):.3f}"
    )
    for index, (name, value) in enumerate(sorted(floor_dice.items(), key=lambda pair: pair[1])):
        label = f"floor {name.replace('_', ' ')}, mean {value:.3f}"
        axis.axvline(value, color=f"C{index + 1}", linestyle=":", linewidth=2, label=label)
    axis.set(xlabel="Dice", ylabel=f"test {unit}s", title=f"Dice of {len(values)} test {unit}s")
    axis.set_xlim(-0.01, 1.01)
    axis.legend(fontsize=8, loc="upper center")
    return figure


def size_figure(found: measures.Objects) -> figures.Figure:
    """Dice of every object against its area, medians of size classes, and the missed ones."""
    figure, (axis, right) = figures.subplots(1, 2, size=(11, 4.2))
    missed = found.found < measures.FOUND_SHARE
    axis.plot(found.area[~missed], found.dice[~missed], ".", color="C0", alpha=0.35, label="found")
    axis.plot(found.area[missed], found.dice[missed], "x", color="C1", label="missed")
    areas = np.geomspace(max(4, found.area.min()), found.area.max(), 100)
    disc = areas / np.pi  # radius squared
    inner = np.maximum(np.sqrt(disc) - 1, 0) ** 2
    shrunk = 2 * inner / (disc + inner)
    axis.plot(areas, shrunk, color="0.4", label="a disc, one pixel too small all around")
    axis.set(xscale="log", xlabel="area of the object (pixels)", ylabel="its Dice")
    ticks = [tick for tick in (5, 10, 25, 50, 100, 200, 400, 800, 1600) if tick <= areas[-1] * 1.3]
    axis.set_xticks([tick for tick in ticks if tick >= areas[0] * 0.7])
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.tick_params(axis="x", which="minor", labelbottom=False)
    axis.set(title="Each object", ylim=(-0.03, 1.03))
    axis.legend(fontsize=8, loc="lower right")
    names, shares, counts = [], [], []
    for low, high in pairwise(SIZES):
        chosen = (found.area >= low) & (found.area < high)
        if chosen.any():
            names.append(f"{low:.0f}+" if np.isinf(high) else f"{low:.0f} to {high:.0f}")
            shares.append(missed[chosen].mean())
            counts.append(f"{missed[chosen].sum()} of {chosen.sum()}")
    bars = right.bar(names, shares, color="C1")
    right.bar_label(bars, counts, fontsize=8, padding=2)
    right.set(xlabel="area (pixels)", ylabel="share", title="Missed objects")
    right.set_ylim(0, max(0.05, 1.25 * max(shares)))
    return figure


def averages_by_size(found: measures.Objects) -> list[dict[str, float]]:
    """For each class of size: mean Dice, mean IoU, and the Dice that the mean IoU would suggest.

    Of one object Dice = 2 IoU / (1 + IoU), exactly. Of means this gives too much, as the curve is
    concave (Jensen): by how much depends on the spread, which is largest for small objects.
    """
    rows = []
    for low, high in pairwise(SIZES):
        dice = found.dice[(found.area >= low) & (found.area < high)]
        if len(dice):
            iou = np.mean(dice / (2 - dice))
            rows.append(
                {
                    "from": low,
                    "objects": len(dice),
                    "dice": float(dice.mean()),
                    "iou": float(iou),
                    "dice_of_mean_iou": float(2 * iou / (1 + iou)),
                }
            )
    return rows


def size_table(rows: list[dict[str, float]]) -> str:
    """What `averages_by_size` finds, in Markdown."""
    lines = [
        [f"{row['from']:.0f}", f"{row['objects']}"]
        + [f"{row[name]:.3f}" for name in ("dice", "iou", "dice_of_mean_iou")]
        for row in rows
    ]
    return markdown_table(["pixels, from", "objects", "Dice", "IoU", "Dice of mean IoU"], lines)


def averages_figure(found: measures.Objects) -> figures.Figure:
    """On one object Dice and IoU say the same; their averages don't, least so for small objects."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4.2))
    curve = np.linspace(0, 1, 100)
    left.plot(curve, 2 * curve / (1 + curve), color="0.5", linewidth=1, label="2 IoU / (1 + IoU)")
    small = found.area < measures.SMALL_AREA
    for chosen, name, colour in ((~small, "others", "C0"), (small, "small objects", "C1")):
        dice = found.dice[chosen]
        if not len(dice):
            continue
        iou = dice / (2 - dice)
        left.plot(iou, dice, ".", color=colour, alpha=0.35, label=f"{name} ({len(dice)})")
        left.plot(iou.mean(), dice.mean(), "D", color=colour, markeredgecolor="black",
                  label=f"their means: {iou.mean():.3f}, {dice.mean():.3f}")  # fmt: skip
    left.set(xlabel="IoU", ylabel="Dice", title="Each object, and the means")
    left.legend(fontsize=8)
    rows = averages_by_size(found)
    places = np.arange(len(rows))
    for shift, key, name in ((-0.2, "dice", "mean Dice"), (0.2, "iou", "mean IoU")):
        bars = right.bar(places + shift, [row[key] for row in rows], 0.38, label=name)
        right.bar_label(bars, fmt="%.3f", fontsize=7, label_type="center", color="white")
    for place, row in zip(places, rows, strict=True):
        gap = row["dice_of_mean_iou"] - row["dice"]
        right.text(
            place - 0.2, row["dice_of_mean_iou"] + 0.02, f"+{gap:.3f}", ha="center", fontsize=8
        )
    right.plot(
        places - 0.2, [row["dice_of_mean_iou"] for row in rows], "_", markersize=18,
        color="black", label="Dice computed from the mean IoU",
    )  # fmt: skip
    right.set_xticks(places, [f"from {row['from']:.0f}\nn = {row['objects']}" for row in rows])
    right.set(xlabel="area of the object (pixels)", ylim=(0, 1.4), title="Averages by size")
    right.legend(fontsize=8, loc="upper left")
    return figure


def calibration_figure(probabilities: np.ndarray, truth: np.ndarray) -> figures.Figure:
    """Share of target among pixels of each probability; the pixels' number below."""
    mean, share, count = measures.reliability(probabilities, truth)
    figure, (axis, below) = figures.subplots(1, 2, size=(10, 4))
    used = count > 0
    axis.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    axis.plot(mean[used], share[used], marker="o", label="U-Net")
    axis.set(xlabel="probability that the network gives", ylabel="share of target pixels")
    axis.set(title="Calibration of pixels")
    axis.legend()
    below.bar(np.arange(len(count)) / len(count), count, 0.9 / len(count), align="edge")
    below.set(yscale="log", xlabel="probability", ylabel="pixels", title="How often it is unsure")
    return figure
