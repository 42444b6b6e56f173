"""What the segmentations share: data, schedule, scores, floors, and masks drawn on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

import labkit
from labkit import figures, lgg
from labkit.datasets import Data, Part
from tp4_unet_conv3d.scenes import LevelName, scenes

keras = labkit.lazy("keras")
losses = labkit.lazy("tp4_unet_conv3d.losses")
measures = labkit.lazy("tp4_unet_conv3d.metrics")

COUNTS = {"train": 1000, "validation": 200, "test": 300}
SMOKE_COUNTS = {"train": 24, "validation": 16, "test": 16}
PEAK_RATE = 3e-3
"""Adam's learning rate after the first tenth of the training; it then falls to 0 as a cosine."""
TARGET_DICE = 0.8
"""Of validation images; how soon a training reaches it is logged."""


# --- Data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentationPart(Part):
    """Images `x` (n, h, w, 1) float32 and their objects `y` (n, h, w) uint8.

    `y` is 0 for the background, then the number of the object in its image.
    """

    groups: np.ndarray
    """(n,) int from 0; images of a group, such as a patient's, count as one volume when scored."""

    @property
    def masks(self) -> np.ndarray:
        """(n, h, w) bool: any object."""
        return self.y > 0

    @property
    def targets(self) -> np.ndarray:
        """(n, h, w, 1) float32: the masks, as the network is to give them."""
        return self.masks[..., None].astype(np.float32)

    @property
    def images(self) -> np.ndarray:
        """(n, h, w) float32, to look at and for the floors."""
        return self.x[..., 0]


def load(
    choice: labkit.DataChoice,
    smoke: bool,
    level: LevelName = "standard",
    training_images: int = COUNTS["train"],
    mri_slices: int | None = None,
) -> Data:
    """MRI slices split by patient where `choice` is `real`, otherwise simulated cells of `level`.

    The parts are `SegmentationPart`s of images (n, 128, 128, 1). Leaves with exit code 2 where the
    MRI slices can't be had, or aren't `mri_slices` if that is given.
    """
    if choice == "real":
        slices, source = lgg.load_slices(2 if smoke else None, mri_slices)
        parts = {
            part: SegmentationPart(
                found.images,
                measures.number_regions(found.masks),
                np.unique(found.patients, return_inverse=True)[1],
            )
            for part, found in slices.items()
        }
        return Data(source, **parts)
    counts = SMOKE_COUNTS if smoke else COUNTS | {"train": training_images}
    parts = {part: _cells(part, count, level) for part, count in counts.items()}
    return Data(f"simulated:{level}", **parts)


@lru_cache(maxsize=3)  # a comparison asks for each of its trainings
def _cells(part: str, count: int, level: LevelName) -> SegmentationPart:
    images, instances = scenes(part, count, level)
    return SegmentationPart(images[..., None] / np.float32(255), instances, np.arange(count))


# --- Training ------------------------------------------------------------------------------------


def one_cycle(steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Up to `PEAK_RATE` in the first tenth of `steps` batches, then down to 0 as a cosine."""
    return keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 30, steps - steps // 10, warmup_target=PEAK_RATE, warmup_steps=steps // 10
    )


def compile_logits(
    network: keras.Model, loss: str, optimizer: keras.optimizers.Optimizer, smoke: bool = False
) -> keras.Model:
    """`network` without its sigmoid, the same weights, compiled for training with logits.

    With a loss of `LOSSES` and the metrics where the probability is 0.5 and the logit 0: dice, iou,
    val_dice, val_iou. For `smoke` it runs eagerly: a graph would take longer to make than the
    training to run.
    """
    model = keras.Model(network.input, network.get_layer("logits").output, name=network.name)
    model.compile(
        optimizer, losses.LOSSES[loss](from_logits=True), run_eagerly=smoke, jit_compile=False,
        metrics=[measures.Dice(threshold=0.0), measures.IoU(threshold=0.0)],
    )  # fmt: skip
    return model


def callbacks(model: keras.Model, run: labkit.Run) -> list[keras.callbacks.Callback]:
    """What each epoch leaves: `seconds` since the training began, the best weights, a checkpoint.

    Seconds include the validation, and go on where an interrupted training stopped.
    """
    preparation = run.seconds - max(run.history.get("seconds", []), default=0.0)
    return [
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(seconds=run.seconds - preparation)
        ),
        run.keeps_best("val_dice", "max"),
        run.checkpoints(model),
    ]


def restored(build: Callable[[], keras.Model], best: Path, loss: str, seed: int) -> keras.Model:
    """The weights in the file `best` in a float32 network that `build` makes anew.

    So evaluation doesn't depend on the precision. It ends in probabilities and is compiled, so that
    `evaluate()` works on the saved file; with plain SGD, which has no state to save.
    """
    labkit.prepare(seed)
    twin = build()
    twin.load_weights(best)
    metrics = [measures.Dice(), measures.IoU()]
    twin.compile("sgd", losses.LOSSES[loss](), metrics=metrics, jit_compile=False)
    return twin


def convergence(history: dict[str, list[float]]) -> dict[str, float]:
    """Epochs and seconds until validation Dice is 0.8 for the first time; nothing if it never is.

    Seconds include the validation after each epoch, which all trainings have.
    """
    reached = np.flatnonzero(np.array(history["val_dice"]) >= TARGET_DICE)
    if not len(reached):
        return {}
    return {
        f"epochs_to_dice_{TARGET_DICE}": float(reached[0] + 1),
        f"seconds_to_dice_{TARGET_DICE}": history["seconds"][reached[0]],
    }


# --- Evaluation ----------------------------------------------------------------------------------


def probabilities_of(model: keras.Model, x: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """(n, h, w, 1) to (n, h, w) probabilities of the target, (n, d, h, w, 1) to (n d, h, w)."""
    return model.predict(x, batch_size=batch_size, verbose=0).reshape(-1, *x.shape[-3:-1])


def score(probabilities: np.ndarray, part: SegmentationPart, threshold: float) -> dict[str, float]:
    """Everything that is measured of probabilities (n, h, w) cut at `threshold`.

    `dice` and `iou` are means over images, or over patients on MRI, of those with a target.
    """
    masks, predicted = part.masks, probabilities > threshold
    dice, iou = measures.overlap(predicted, masks, part.groups)
    low, high = measures.bootstrap_interval(dice)
    kept, empty = measures.kept_empty(predicted, masks)
    found = measures.objects(predicted, part.y)
    both = 2 * (predicted & masks).sum()
    distances = measures.hausdorff(predicted, masks)
    metrics = {
        "dice": np.nanmean(dice),
        "dice_low": low,
        "dice_high": high,
        "iou": np.nanmean(iou),
        "dice_worst": np.nanmin(dice),
        "dice_all_pixels": both / max(1, predicted.sum() + masks.sum()),  # flattened over all
        "image_dice": np.nanmean(measures.overlap(predicted, masks)[0]),
        "boundary_f1": np.nanmean(measures.boundary_f1(predicted, masks)),
        "objects": len(found.area),
        "objects_missed": found.missed()[0],
        "small_objects": found.missed(measures.SMALL_AREA)[1],
        "small_objects_missed": found.missed(measures.SMALL_AREA)[0],
        "empty_images": empty,
        "empty_images_kept_empty": kept,
    }
    if np.isfinite(distances).any():
        metrics["hd95"] = np.nanmean(distances)
        metrics["hd95_undefined"] = np.isnan(distances[masks.any(axis=(1, 2))]).sum()
    small = found.dice[found.area < measures.SMALL_AREA]
    if len(small):
        metrics["small_object_dice"] = small.mean()
    return {name: float(value) for name, value in metrics.items()}


def floors(data: Data) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What needs no network: its test Dice and IoU, what was chosen for it, its masks (n, h, w).

    The figures are called `floor_<name>` and `floor_<name>_iou`, the choices `threshold_floor_...`.
    """
    from tp4_unet_conv3d.floors import floor_masks

    masks, metrics = floor_masks(data)
    truth = data.test.masks
    for name, mask in masks.items():
        dice, iou = measures.overlap(mask, truth, data.test.groups)
        metrics[f"floor_{name}"] = float(np.nanmean(dice))
        metrics[f"floor_{name}_iou"] = float(np.nanmean(iou))
    return metrics, masks


# --- Figures -------------------------------------------------------------------------------------


def grey(images: np.ndarray) -> np.ndarray:
    """(n, h, w) of any range to 0..1, each image from its 1st to its 99.5th percentile."""
    low, high = np.percentile(images, [1, 99.5], axis=(1, 2), keepdims=True)
    return np.clip((images - low) / np.maximum(high - low, 1e-6), 0, 1)


def overlay(images: np.ndarray, predicted: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images (n, h, w) in 0..1 with right, missed and false pixels coloured: (n, h, w, 3)."""
    shown = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
    for pixels, colour in (
        (predicted & masks, (0.0, 0.72, 0.53)),  # green: right
        (~predicted & masks, (0.95, 0.65, 0.0)),  # orange: missed
        (predicted & ~masks, (0.86, 0.15, 0.5)),  # magenta: false alarm
    ):
        shown[pixels] = 0.5 * shown[pixels] + 0.5 * np.array(colour, np.float32)
    return shown


def overlay_figure(
    part: SegmentationPart,
    predictions: dict[str, np.ndarray],
    chosen: Sequence[int],
    titles: Sequence[str],
) -> figures.Figure:
    """The `chosen` images, a column each: the image, then each of `predictions` on top of it."""
    index = np.asarray(chosen)
    greys = grey(part.images[index])
    rows = {"image": np.repeat(greys[..., None], 3, axis=-1)} | {
        name: overlay(greys, prediction[index], part.masks[index])
        for name, prediction in predictions.items()
    }
    size = (1.55 * len(index) + 0.3, 1.6 * len(rows) + 0.5)
    figure, axes = figures.subplots(len(rows), len(index), size=size)
    for axis_row, (name, images) in zip(axes, rows.items(), strict=True):
        axis_row[0].set_ylabel(name.replace("_", " "), fontsize=9)
        for axis, image in zip(axis_row, images, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, fontweight="normal")
    figure.suptitle("Green: right. Orange: missed. Magenta: false alarm.", fontsize=9, color="0.3")
    return figure
