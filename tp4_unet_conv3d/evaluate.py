"""Examine a trained U-Net: best and worst masks, size of objects, contours, how sure, how fast?

    python tp4_unet_conv3d/evaluate.py                 # the last trained model
    python tp4_unet_conv3d/evaluate.py --run ID        # another: MLflow run id or folder name
    python tp4_unet_conv3d/evaluate.py --level hard    # on cells of another difficulty

Nothing is trained or chosen here: the threshold is the training's, and so are the test figures.
The report and its five figures land in the run's folder and beside the training in MLflow. Half
a minute on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

import labkit
from labkit import figures
from labkit.arguments import fail
from tp4_unet_conv3d.scenes import LevelName
from tp4_unet_conv3d.unet_segmentation import (
    Config as TrainingConfig,
)
from tp4_unet_conv3d.unet_segmentation import (
    Part,
    floors,
    load,
    overlay_figure,
    probabilities_of,
    score,
)

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")

SIZES = (0, 40, 80, 160, 320, 640, np.inf)
"""Bin edges of object area, pixels."""


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: what it was trained on; real (MRI) and sample (cells) must be the same."""
    level: LevelName | None = None
    """Difficulty of the simulated cells, if not the training's."""
    seed: int = 0
    """Of the tests of speed."""
    smoke: bool = False
    """Few images, as in training with --smoke."""


def training_config(config: Config, trained: labkit.Run) -> TrainingConfig:
    """The training's settings, for loading its images; exit code 2 where `config` contradicts."""
    was_real = trained.config["data"] == "real"
    if config.data != "auto" and was_real != (config.data == "real"):
        known = "real" if was_real else "simulated"
        fail(f"--data {config.data}: this run was trained on {known} images")
    if was_real and config.level:
        fail(f"--level {config.level}: this run was trained on MRI slices")
    return TrainingConfig(
        data="real" if was_real else "sample",
        level=config.level or trained.config["level"],
        smoke=config.smoke or trained.config["smoke"],
    )


# --- Figures -------------------------------------------------------------------------------------


def extremes_figure(part: Part, predictions: np.ndarray, dice: np.ndarray) -> figures.Figure:
    """Images (n) with the three highest, three middle and three lowest `dice` (n,)."""
    order = np.argsort(-dice)[: np.isfinite(dice).sum()]  # best first, NaN left out
    middle = len(order) // 2
    chosen = [*order[:3], *order[max(0, middle - 1) : middle + 2], *order[-3:]]
    kinds = np.repeat(["best", "median", "worst"], 3)[: len(chosen)]
    titles = [f"{kind}: {dice[i]:.3f}\n#{i}" for kind, i in zip(kinds, chosen, strict=False)]
    rows = {"truth": part.masks, "U-Net": predictions}
    return overlay_figure(part, rows, chosen, titles)


def distribution_figure(
    dice: np.ndarray, floor_values: dict[str, float], unit: str
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
    for index, (name, value) in enumerate(sorted(floor_values.items(), key=lambda pair: pair[1])):
        label = f"floor {name.removeprefix('floor_').replace('_', ' ')}, mean {value:.3f}"
        axis.axvline(value, color=f"C{index + 1}", linestyle=":", linewidth=2, label=label)
    axis.set(xlabel="Dice", ylabel=f"test {unit}s", title=f"Dice of {len(values)} test {unit}s")
    axis.set_xlim(-0.01, 1.01)
    axis.legend(fontsize=8, loc="upper center")
    return figure


def shrunk_dice(areas: np.ndarray) -> np.ndarray:
    """Dice of discs of `areas` pixels against discs smaller by one pixel all around."""
    radius = np.sqrt(areas / np.pi)
    inner = np.maximum(radius - 1, 0) ** 2
    return 2 * inner / (radius**2 + inner)


def size_figure(found) -> figures.Figure:
    """Dice of every object against its area, medians of size classes, and the missed ones."""
    figure, (axis, right) = figures.subplots(1, 2, size=(11, 4.2))
    missed = found.found < measures.FOUND_SHARE
    axis.plot(found.area[~missed], found.dice[~missed], ".", color="C0", alpha=0.35, label="found")
    axis.plot(found.area[missed], found.dice[missed], "x", color="C1", label="missed")
    areas = np.geomspace(max(4, found.area.min()), found.area.max(), 100)
    axis.plot(
        areas, shrunk_dice(areas), color="0.4", label="a disc, one pixel too small all around"
    )
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


def averages_by_size(found) -> list[dict[str, float]]:
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


def averages_figure(found) -> figures.Figure:
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


# --- Speed, main ---------------------------------------------------------------------------------


def milliseconds(model: keras.Model, inputs: np.ndarray, batch: int, repeats: int = 10) -> float:
    """Median time for one image in batches of `batch`, the first one left out."""
    chosen = inputs[np.arange(batch) % len(inputs)]
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        model.predict_on_batch(chosen)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:])) / batch


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run("tp4_unet_conv3d.unet_segmentation", config.run)
    settings = training_config(config, trained)
    labkit.prepare(config.seed)
    import tp4_unet_conv3d.losses  # registers the saved model's loss,
    import tp4_unet_conv3d.metrics  # noqa: F401  and its metrics

    parts, source = load(settings)
    test = parts["test"]
    unit = "patient" if settings.data == "real" else "image"
    if source != trained.state["data_source"]:
        print(f"note: trained on {trained.state['data_source']}, examined on {source}")
    model = keras.saving.load_model(trained.folder / "model.keras")
    threshold = trained.metrics["threshold"]

    name, parent = trained.state["name"], trained.state["run_id"] or ""
    with labkit.start_run(__file__, config, source, name, parent) as run:
        probabilities = probabilities_of(model, test.inputs)
        predictions = probabilities > threshold
        metrics = score(probabilities, test, threshold)
        floor_values, _ = floors(parts)
        metrics |= floor_values
        metrics["calibration_error"] = measures.calibration_error(probabilities, test.masks)
        metrics["brier"] = float(np.mean((probabilities - test.masks) ** 2))
        for batch in (1, 4 if config.smoke else 32):
            metrics[f"ms_per_image_batch_{batch}"] = milliseconds(model, test.inputs, batch)

        found = measures.objects(predictions, test.instances)
        rows = averages_by_size(found)
        of_groups, _ = measures.overlap(predictions, test.masks, test.groups)
        of_images, _ = measures.overlap(predictions, test.masks)
        run.save_figure("best_and_worst", extremes_figure(test, predictions, of_images))
        run.save_figure("dice_distribution", distribution_figure(of_groups, floor_values, unit))
        run.save_figure("object_size", size_figure(found))
        run.save_figure("dice_and_iou", averages_figure(found))
        run.save_figure("calibration", calibration_figure(probabilities, test.masks))
        run.log_metrics(metrics)

        lines = [
            f"Test Dice: {metrics['dice']:.4f}, 95 % interval {metrics['dice_low']:.4f} to "
            f"{metrics['dice_high']:.4f}, mean over {np.isfinite(of_groups).sum()} {unit}s with a "
            f"target ({source})",
            f"  IoU {metrics['iou']:.4f}; flattened over all pixels, Dice would be "
            f"{metrics['dice_all_pixels']:.4f}",
            *(
                f"  floor, {key.removeprefix('floor_').replace('_', ' ')}: {value:.4f}"
                for key, value in floor_values.items()
            ),
            f"Contours: F1 at 2 pixels {metrics['boundary_f1']:.4f}, 95 % Hausdorff "
            f"{metrics.get('hd95', np.nan):.2f} pixels",
            f"Missed: {metrics['objects_missed']:.0f} of {metrics['objects']:.0f} objects, of the "
            f"small ones {metrics['small_objects_missed']:.0f} of {metrics['small_objects']:.0f}",
            f"Without target: {metrics['empty_images_kept_empty']:.0f} of "
            f"{metrics['empty_images']:.0f} images stayed empty",
            f"Pixels: calibration error {metrics['calibration_error']:.4f}, Brier score "
            f"{metrics['brier']:.4f}",
            "Time for an image: "
            + ", ".join(
                f"{value:.1f} ms in batches of {key.rpartition('_')[2]}"
                for key, value in metrics.items()
                if key.startswith("ms_per_image_batch_")
            ),
            "Objects by area, from pixels: number, mean Dice, mean IoU, Dice from the mean IoU",
            *(
                f"  {row['from']:4.0f}: {row['objects']:4d}  {row['dice']:.3f}  {row['iou']:.3f}  "
                f"{row['dice_of_mean_iou']:.3f}"
                for row in rows
            ),
        ]
        summary = "\n".join(lines)
        print(f"\n{summary}\n")
        run.save_text("report.md", f"# {name}, examined\n\n```\n{summary}\n```\n")
    return metrics


if __name__ == "__main__":
    main()
