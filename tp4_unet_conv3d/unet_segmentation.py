"""Does a U-Net find what no threshold can: cells in simulated microscopy, gliomas in real MRI?

    python tp4_unet_conv3d/unet_segmentation.py                   # simulated cells
    python tp4_unet_conv3d/unet_segmentation.py --width 32        # the hand-out's full size
    python tp4_unet_conv3d/unet_segmentation.py --loss focal      # bce, dice, bce+dice, tversky
    python tp4_unet_conv3d/unet_segmentation.py --level easy      # where one threshold suffices
    python tp4_unet_conv3d/unet_segmentation.py --data real       # MRI slices, split by patient
    python tp4_unet_conv3d/unet_segmentation.py --smoke           # everything once, in seconds

README.md has the exact figures with their spread and times on two cores. Add --resume to go on
after a crash.

References: Ronneberger, Fischer and Brox (MICCAI 2015) for the U-Net; `scenes.py` describes the
simulated images, `mri.py` the real ones, `metrics.py` the rule for empty masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from tp4_unet_conv3d import mri
from tp4_unet_conv3d.models import build_unet, forward_flops
from tp4_unet_conv3d.scenes import PARTS, LevelName, scenes

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")
augmentation = labkit.lazy("tp4_unet_conv3d.augmentation")

BATCH_SIZE = 16
PEAK_RATE = 3e-3
"""Adam's learning rate after the first tenth of the training; it then falls to 0 as a cosine."""
TARGET_DICE = 0.8
"""Of validation images; how soon a training reaches it is logged."""
COUNTS = {"train": 1000, "validation": 200, "test": 300}
SMOKE_COUNTS = {"train": 48, "validation": 16, "test": 16}
KEEP_EMPTY_SLICES = 0.5
"""Share of the MRI slices without tumour that an epoch sees."""


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    data: labkit.DataChoice = "auto"
    """real: LGG MRI slices below LABKIT_DATA, or an error; auto and sample: simulated cells."""
    level: LevelName = "standard"
    """Difficulty of the simulated cells."""
    width: int = 16
    """Filters at full resolution, 1 or more; 32 is the hand-out's U-Net, four times the work."""
    loss: Literal["bce", "dice", "bce+dice", "tversky", "focal"] = "bce+dice"
    """See losses.py."""
    epochs: int | None = None
    """Passes over the training images, 1 or more; if not given 12, on MRI 30."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: the machine's faster one."""
    seed: int = 0
    """Seed of weights, order and augmentation; never of the images or the split."""
    smoke: bool = False
    """One epoch of a narrow network on few images, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, width=1, seed=0)


# --- Data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Images and masks, one row each; those of a group count as one volume when scored."""

    inputs: np.ndarray
    """(n, 128, 128, 1) float32."""
    instances: np.ndarray
    """(n, 128, 128) uint8: 0 for the background, then the number of the object."""
    groups: np.ndarray
    """(n,) int from 0: the image itself, or the patient."""

    @property
    def masks(self) -> np.ndarray:
        """(n, 128, 128) bool."""
        return self.instances > 0

    @property
    def images(self) -> np.ndarray:
        """(n, 128, 128) float32, to look at and for the floors."""
        return self.inputs[..., 0]


def load(config: Config) -> tuple[dict[str, Part], str]:
    """The parts train, validation and test, and the data source."""
    if config.data == "real":
        slices, source = mri.load(2 if config.smoke else None)
        return {
            part: Part(
                found.images,
                measures.number_regions(found.masks),
                np.unique(found.patients, return_inverse=True)[1],
            )
            for part, found in slices.items()
        }, source
    counts = SMOKE_COUNTS if config.smoke else COUNTS
    parts = {}
    for part in PARTS:
        drawn = scenes(part, counts[part], config.level)
        inputs = drawn.images[..., None] / np.float32(255)
        parts[part] = Part(inputs, drawn.instances, np.arange(counts[part]))
    return parts, f"simulated:{config.level}"


# --- Training ------------------------------------------------------------------------------------


def compile_model(
    model: keras.Model, loss: str, optimizer: keras.optimizers.Optimizer | str
) -> None:
    """Give `model` its loss and the hard metrics at 0.5: dice, iou, val_dice, val_iou."""
    from tp4_unet_conv3d.losses import LOSSES

    metrics = [measures.Dice(), measures.IoU()]
    model.compile(optimizer, loss=LOSSES[loss](), metrics=metrics, jit_compile=False)


def train(
    model: keras.Model,
    config: Config,
    training: Part,
    validation: Part,
    run: labkit.Run,
    verbose: int | str = "auto",
) -> None:
    """Fit `model` and keep the weights of the epoch with the best validation Dice."""
    real = config.data == "real"
    sequence = augmentation.SegmentationBatches(
        training.inputs, training.masks[..., None].astype(np.float32), BATCH_SIZE, config.seed,
        run.first_epoch,
        augment=augmentation.move_head if real else augmentation.turn,
        keep_empty=KEEP_EMPTY_SLICES if real else 1.0,
    )  # fmt: skip
    steps = config.epochs * len(sequence)
    rate = keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 30, steps - steps // 10, warmup_target=PEAK_RATE, warmup_steps=steps // 10
    )
    compile_model(model, config.loss, keras.optimizers.Adam(rate))
    preparation = run.seconds - max(run.history.get("seconds", []), default=0.0)
    model.fit(
        sequence,
        validation_data=(validation.inputs, validation.masks[..., None].astype(np.float32)),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # SegmentationBatches shuffles, in an order that a resumed run repeats
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: logs.update(seconds=run.seconds - preparation)
            ),
            run.keeps_best("val_dice", "max"),
            run.checkpoints(model),
        ],
        verbose=verbose,
    )  # fmt: skip


def restored(best: Path, config: Config) -> keras.Model:
    """The weights in the file `best` in a float32 network.

    So evaluation doesn't depend on the precision. It is compiled, so that `evaluate()` works on the
    saved file; with plain SGD, which has no state to save.
    """
    labkit.prepare(config.seed)
    twin = build_unet(config.width)
    twin.load_weights(best)
    compile_model(twin, config.loss, "sgd")
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


def probabilities_of(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """(n, 128, 128, 1) to (n, 128, 128) probabilities of the target."""
    return model.predict(inputs, batch_size=32, verbose=0)[..., 0]


def score(probabilities: np.ndarray, part: Part, threshold: float) -> dict[str, float]:
    """Everything that is measured of probabilities (n, 128, 128) cut at `threshold`.

    `dice` and `iou` are means over images, or over patients on MRI, of those with a target.
    """
    masks, predicted = part.masks, probabilities > threshold
    dice, iou = measures.overlap(predicted, masks, part.groups)
    low, high = measures.bootstrap_interval(dice)
    kept, empty = measures.kept_empty(predicted, masks)
    found = measures.objects(predicted, part.instances)
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


def floors(parts: dict[str, Part]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Test Dice of what needs no network, and its masks (n, 128, 128)."""
    from tp4_unet_conv3d.floors import floor_masks

    validation, test = parts["validation"], parts["test"]
    masks = floor_masks(
        parts["train"].masks,
        (validation.images, validation.masks, validation.groups),
        test.images,
    )
    dice = {
        f"floor_{name}": float(np.nanmean(measures.overlap(mask, test.masks, test.groups)[0]))
        for name, mask in masks.items()
    }
    return dice, masks


# --- Figures, report, main -----------------------------------------------------------------------


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
    part: Part, predictions: dict[str, np.ndarray], chosen: Sequence[int], titles: Sequence[str]
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


def show(metrics: dict[str, float], unit: str) -> dict[str, float]:
    """Print the test result beside its floors and return `metrics`."""
    print(
        f"Test Dice, mean over {unit}s with a target: {metrics['dice']:.4f}, 95 % interval "
        f"{metrics['dice_low']:.4f} to {metrics['dice_high']:.4f}; IoU {metrics['iou']:.4f}\n"
        f"  threshold {metrics['threshold']:.2f} and epoch {metrics['best_epoch']:.0f} chosen on "
        f"validation; with mirror images averaged {metrics['dice_mirrored']:.4f}\n"
        f"  missed objects: {metrics['objects_missed']:.0f} of {metrics['objects']:.0f}, of the "
        f"small ones {metrics['small_objects_missed']:.0f} of {metrics['small_objects']:.0f}\n"
        f"  images without target: {metrics['empty_images_kept_empty']:.0f} of "
        f"{metrics['empty_images']:.0f} stayed empty"
    )
    for name, value in metrics.items():
        if name.startswith("floor_"):
            print(f"  floor, {name.removeprefix('floor_').replace('_', ' ')}: {value:.4f}")
    return metrics


def report(name: str, source: str, unit: str, metrics: dict[str, float]) -> str:
    """The run's `report.md`: result beside its floors, and what was chosen where."""
    rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in metrics.items())
    return (
        f"# {name}\n\nData: {source}.\n\n| metric | value |\n| --- | --- |\n{rows}\n\nEpoch and "
        f"threshold were chosen on validation images; the test images were scored once. Dice "
        f"and IoU are means over {unit}s with a target; images without one are counted apart.\n"
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, choose the threshold, evaluate once on test, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)  # before anything imports Keras
    real = config.data == "real"
    unit = "patient" if real else "image"
    parts, source = load(config)
    config = replace(
        config,
        epochs=1 if config.smoke else config.epochs or (30 if real else 12),
        width=min(4, config.width) if config.smoke else config.width,
        precision=labkit.fast_precision() if config.precision == "auto" else config.precision,
    )
    name = f"unet{config.width}-adam-{config.loss}-s{config.seed}"
    with labkit.start_run(__file__, config, source, name) as run:
        if run.is_finished:
            return show(run.metrics, unit)
        labkit.prepare(config.seed, config.precision)
        model = build_unet(config.width)
        verbose = 2 if config.smoke else "auto"
        train(model, config, parts["train"], parts["validation"], run, verbose)
        metrics = {"train_seconds": run.seconds, **convergence(run.history)}
        metrics["training_petaflop"] = (
            3 * forward_flops(model) * config.epochs * len(parts["train"].inputs) / 1e15
        )

        twin = restored(run.best_file, config)
        metrics["best_epoch"] = int(np.argmax(run.history["val_dice"])) + 1
        metrics["parameters"] = twin.count_params()

        validation, test = parts["validation"], parts["test"]
        probabilities = probabilities_of(twin, validation.inputs)
        threshold = measures.choose_threshold(probabilities, validation.masks, validation.groups)
        metrics["threshold"] = threshold
        metrics["validation_dice"] = score(probabilities, validation, threshold)["dice"]
        probabilities = probabilities_of(twin, test.inputs)  # the one time that test is looked at
        metrics |= score(probabilities, test, threshold)
        mirrored = probabilities_of(twin, test.inputs[:, :, ::-1])[:, :, ::-1]
        both = (probabilities + mirrored) / 2 > threshold
        metrics["dice_mirrored"] = np.nanmean(measures.overlap(both, test.masks, test.groups)[0])
        floor_dice, floor_masks = floors(parts)
        metrics |= floor_dice
        run.log_metrics(metrics)

        run.save_figure(
            "learning_curves", figures.learning_curves(run.history, ["loss", "dice", "iou"])
        )
        rows = {floor: floor_masks[floor] for floor in ("threshold", "otsu", "local_contrast")}
        rows["U-Net"] = probabilities > threshold
        chosen = np.linspace(0, len(test.inputs) - 1, 8).astype(int)
        titles = [f"test #{index}" for index in chosen]
        run.save_figure("overlays", overlay_figure(test, rows, chosen, titles))
        run.save_text("report.md", report(name, source, unit, run.metrics))
        twin.save(run.folder / "model.keras")
    return show(run.metrics, unit)


if __name__ == "__main__":
    main()
