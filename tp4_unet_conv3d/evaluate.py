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

import numpy as np

import labkit
from labkit import Data
from labkit.arguments import fail
from labkit.results import beside_floors
from tp4_unet_conv3d.scenes import LevelName
from tp4_unet_conv3d.segmentation import SegmentationPart, floors, load, probabilities_of, score

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")
mask_figures = labkit.lazy("tp4_unet_conv3d.mask_figures")

EXAMINES = ("tp4_unet_conv3d.unet_segmentation",)


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


def data_of(config: Config, trained: labkit.Run) -> Data:
    """The data that `trained` saw, or another level's; exit code 2 where `config` contradicts."""
    was_real = trained.config["data"] == "real"
    if config.data != "auto" and was_real != (config.data == "real"):
        known = "real" if was_real else "simulated"
        fail(f"--data {config.data}: this run was trained on {known} images")
    if was_real and config.level:
        fail(f"--level {config.level}: this run was trained on MRI slices")
    return load(
        "real" if was_real else "sample",
        config.smoke or trained.config["smoke"],
        config.level or trained.config["level"],
    )


def milliseconds(model: keras.Model, x: np.ndarray, batch: int, repeats: int = 10) -> float:
    """Median time for one image in batches of `batch`, the first one left out."""
    chosen = x[np.arange(batch) % len(x)]
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        model.predict_on_batch(chosen)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:])) / batch


def save_figures(
    run: labkit.Run, test: SegmentationPart, probabilities: np.ndarray, threshold: float, unit: str
) -> None:
    """The five figures of probabilities (n, 128, 128), cut at `threshold`."""
    predicted, masks = probabilities > threshold, test.masks
    found = measures.objects(predicted, test.y)
    of_groups, _ = measures.overlap(predicted, masks, test.groups)
    of_images, _ = measures.overlap(predicted, masks)
    floor_dice = {
        name.removeprefix("floor_"): value
        for name, value in run.metrics.items()
        if name.startswith("floor_") and not name.endswith("_iou")
    }
    for name, figure in {
        "best_and_worst": mask_figures.extremes_figure(test, predicted, of_images),
        "dice_distribution": mask_figures.distribution_figure(of_groups, floor_dice, unit),
        "object_size": mask_figures.size_figure(found),
        "dice_and_iou": mask_figures.averages_figure(found),
        "calibration": mask_figures.calibration_figure(probabilities, masks),
    }.items():
        run.save_figure(name, figure)


def in_words(metrics: dict[str, float], rows: list[dict[str, float]], unit: str) -> str:
    """The examination in Markdown; `rows` are averages by size."""
    times = ", ".join(
        f"{value:.1f} ms in batches of {name.rpartition('_')[2]}"
        for name, value in metrics.items()
        if name.startswith("ms_per_image_batch_")
    )
    return f"""{beside_floors(metrics, {"dice": "Dice", "iou": "IoU"}, "U-Net")}
- Means over {unit}s with a target; 95 % interval of Dice {metrics["dice_low"]:.4f} to \
{metrics["dice_high"]:.4f}; flattened over all pixels it would be {metrics["dice_all_pixels"]:.4f}.
- Contours: F1 at 2 pixels {metrics["boundary_f1"]:.4f}, 95 % Hausdorff \
{metrics.get("hd95", np.nan):.2f} pixels.
- Missed: {metrics["objects_missed"]:.0f} of {metrics["objects"]:.0f} objects, of the small ones \
{metrics["small_objects_missed"]:.0f} of {metrics["small_objects"]:.0f}.
- Without target: {metrics["empty_images_kept_empty"]:.0f} of {metrics["empty_images"]:.0f} images \
stayed empty.
- Pixels: calibration error {metrics["calibration_error"]:.4f}, Brier score {metrics["brier"]:.4f}.
- Time for an image: {times}.

{mask_figures.size_table(rows)}"""


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    data = data_of(config, trained)
    labkit.prepare(config.seed)
    test, threshold = data.test, trained.metrics["threshold"]
    unit = "patient" if trained.config["data"] == "real" else "image"
    model = labkit.load_model(trained.folder / "model.keras", compiled=False)
    model.compile(jit_compile=False)  # its loss and metrics are not needed
    with labkit.examination(__file__, config, trained, data.source) as run:
        probabilities = probabilities_of(model, test.x)
        metrics = score(probabilities, test, threshold) | floors(data)[0]
        metrics["calibration_error"] = measures.calibration_error(probabilities, test.masks)
        metrics["brier"] = float(np.mean((probabilities - test.masks) ** 2))
        for batch in (1, 4 if config.smoke else 32):
            metrics[f"ms_per_image_batch_{batch}"] = milliseconds(model, test.x, batch)
        run.log_metrics(metrics)
        save_figures(run, test, probabilities, threshold, unit)
        found = measures.objects(probabilities > threshold, test.y)
        text = in_words(metrics, mask_figures.averages_by_size(found), unit)
        print(f"\n{text}")
        run.save_report(f"{trained.state['name']}, examined", text)
    return metrics


if __name__ == "__main__":
    main()
