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
simulated images, `labkit/lgg.py` the real ones, `metrics.py` the rule for empty masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

import labkit
from labkit import Data, figures
from labkit.results import beside_floors
from tp4_unet_conv3d import segmentation
from tp4_unet_conv3d.augmentation import fewer_empty, move_head, turn
from tp4_unet_conv3d.models import DEPTH, build_unet, forward_flops
from tp4_unet_conv3d.scenes import LevelName
from tp4_unet_conv3d.segmentation import floors, load, overlay_figure, probabilities_of, score

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
measures = labkit.lazy("tp4_unet_conv3d.metrics")

BATCH_SIZE = 16
KEEP_EMPTY_SLICES = 0.5
"""Share of the MRI slices without tumour that an epoch sees."""


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    data: labkit.DataChoice = "auto"
    """real: LGG MRI slices below LABKIT_DATA, or an error; auto and sample: simulated cells."""
    level: LevelName = "standard"
    """Difficulty of the simulated cells."""
    width: int = 16
    """Filters at full resolution, 1 or more; 32 is the hand-out's U-Net, four times the work."""
    loss: Literal["bce", "dice", "bce+dice", "tversky", "focal", "focal75"] = "bce+dice"
    """See losses.py; focal75 weighs the target's pixels three times as much as the background's."""
    epochs: int | None = None
    """Passes over the training images, 1 or more; if not given 12, on MRI 30."""
    mri_slices: int | None = None
    """How many slices the MRI set must have, 1 or more: its selections aren't the same task."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: the machine's faster one."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1, mri_slices=1)
        if self.mri_slices and not self.real:
            raise ValueError(f"--mri-slices {self.mri_slices} is for --data real")

    @property
    def real(self) -> bool:
        """Whether it is trained on MRI slices."""
        return self.data == "real"

    def completed(self) -> Config:
        """The same with what depends on data, machine and smoke filled in."""
        return replace(
            self,
            epochs=2 if self.smoke else self.epochs or (30 if self.real else 12),
            width=min(4, self.width) if self.smoke else self.width,
            precision=labkit.fast_precision() if self.precision == "auto" else self.precision,
        )


def train(config: Config, data: Data, run: labkit.Run) -> keras.Model:
    """Fit a U-Net; return it with the weights of the epoch with the best validation Dice."""
    labkit.prepare(config.seed, config.precision)
    build = partial(build_unet, config.width, 1 if config.smoke else DEPTH)
    training, validation = data.train, data.validation
    sequence = batches.Batches(
        training.x, training.targets, 4 if config.smoke else BATCH_SIZE, config.seed,
        run.first_epoch,
        transform=move_head if config.real else turn,
        draw=fewer_empty(training.masks, KEEP_EMPTY_SLICES) if config.real else None,
    )  # fmt: skip
    rate = segmentation.one_cycle(config.epochs * len(sequence))
    adam = keras.optimizers.Adam(rate)
    model = segmentation.compile_logits(build(), config.loss, adam, config.smoke)
    model.fit(
        sequence,
        validation_data=(validation.x, validation.targets),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=segmentation.callbacks(model, run),
        verbose=2 if config.smoke else "auto",
    )
    return segmentation.restored(build, run.best_file, config.loss, config.seed)


def evaluate(model: keras.Model, data: Data) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Final metrics, and the masks (n, 128, 128) of the U-Net and its floors on test images.

    The threshold is chosen on validation; the test images are looked at once.
    """
    validation, test = data.validation, data.test
    probabilities = probabilities_of(model, validation.x)
    threshold = measures.choose_threshold(probabilities, validation.masks, validation.groups)
    metrics = {
        "threshold": threshold,
        "validation_dice": score(probabilities, validation, threshold)["dice"],
    }
    probabilities = probabilities_of(model, test.x)
    metrics |= score(probabilities, test, threshold)
    mirrored = probabilities_of(model, test.x[:, :, ::-1])[:, :, ::-1]
    both = (probabilities + mirrored) / 2 > threshold
    metrics["dice_mirrored"] = np.nanmean(measures.overlap(both, test.masks, test.groups)[0])
    floor_metrics, masks = floors(data)
    return metrics | floor_metrics, masks | {"U-Net": probabilities > threshold}


def in_words(metrics: dict[str, float], unit: str) -> str:
    """The test result beside its floors, in Markdown; `unit` is what Dice is a mean over."""
    return (
        f"{beside_floors(metrics, {'dice': 'Dice', 'iou': 'IoU'}, 'U-Net')}\n"
        f"- Means over {unit}s with a target; 95 % interval of Dice {metrics['dice_low']:.4f} to "
        f"{metrics['dice_high']:.4f}, with mirror images averaged {metrics['dice_mirrored']:.4f}.\n"
        f"- Threshold {metrics['threshold']:.2f} and epoch {metrics['best_epoch']:.0f} were chosen "
        "on validation images; the test images were scored once.\n"
        f"- Missed objects: {metrics['objects_missed']:.0f} of {metrics['objects']:.0f}, of the "
        f"small ones {metrics['small_objects_missed']:.0f} of {metrics['small_objects']:.0f}.\n"
        f"- Images without target: {metrics['empty_images_kept_empty']:.0f} of "
        f"{metrics['empty_images']:.0f} stayed empty.\n"
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, choose the threshold, evaluate once on test, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)  # before anything imports Keras
    data = load(config.data, config.smoke, config.level, mri_slices=config.mri_slices)
    config = config.completed()
    unit = "patient" if config.real else "image"
    name = f"unet{config.width}-adam-{config.loss}-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            model = train(config, data, run)
            operations = 3 * forward_flops(model) * config.epochs * len(data.train)
            metrics = {
                "train_seconds": run.seconds,
                **segmentation.convergence(run.history),
                "training_petaflop": operations / 1e15,
                "best_epoch": int(np.argmax(run.history["val_dice"])) + 1,
                "parameters": model.count_params(),
            }
            model.save(run.folder / "model.keras")
            tested, masks = evaluate(model, data)
            run.log_metrics(metrics | tested)
            run.save_figure(
                "learning_curves", figures.learning_curves(run.history, ["loss", "dice", "iou"])
            )
            shown = {row: masks[row] for row in ("threshold", "otsu", "local_contrast", "U-Net")}
            chosen = np.linspace(0, len(data.test) - 1, 8).astype(int)
            titles = [f"test #{index}" for index in chosen]
            run.save_figure("overlays", overlay_figure(data.test, shown, chosen, titles))
            run.save_report(name, in_words(run.metrics, unit))
    print(f"\n{in_words(run.metrics, unit)}")
    return run.metrics


if __name__ == "__main__":
    main()
