"""Does a U-Net find the tumour, in which slices, and where: of patients it has never seen?

    python tp6_real_world/brain_tumor/train.py                          # LGG, split by patient
    python tp6_real_world/brain_tumor/train.py --dataset decathlon      # Decathlon Task01
    python tp6_real_world/brain_tumor/train.py --normalization minmax   # the hand-out's trap
    python tp6_real_world/brain_tumor/train.py --sampling tumour        # only slices with a tumour
    python tp6_real_world/brain_tumor/train.py --split slice            # how leakage flatters
    python tp6_real_world/brain_tumor/train.py --smoke                  # everything once

A course's exercise, no medical device: it has been shown 110 patients of one disease and must not
be asked about any person. README.md has the figures; add --resume to go on after a crash.

References: Ronneberger et al. (MICCAI 2015) for the U-Net, Buda et al. (Computers in Biology and
Medicine 2019) for the data, Isensee et al. (Nature Methods 2021) for the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

import labkit
from labkit import Data, figures
from labkit.results import beside_floors
from tp6_real_world.brain_tumor.data import Dataset, Split, load
from tp6_real_world.brain_tumor.preparation import Normalization, Sampling, move_head, sampler
from tp6_real_world.brain_tumor.segmentation import (
    BATCH_SIZE,
    Sequences,
    choose,
    inputs_of,
    one_cycle,
    probabilities_of,
    restored,
    score,
)

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp6_real_world.brain_tumor.model")
gallery = labkit.lazy("tp6_real_world.brain_tumor.gallery")
baselines = labkit.lazy("tp6_real_world.brain_tumor.floors")

SHOWN = {
    "dice": "Dice",
    "iou": "IoU",
    "slice_auroc": "AUROC of slices",
    "slice_brier": "Brier score",
}


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    dataset: Dataset = "lgg"
    """lgg: 110 patients with low-grade gliomas; decathlon: Task01, 484 patients, in NIfTI."""
    size: int = 128
    """Side of a slice, pixels: a multiple of 8, 32 or more."""
    width: int = 16
    """Filters at full resolution, 1 or more."""
    loss: Literal["bce+dice", "bce", "dice"] = "bce+dice"
    """See model.py."""
    sampling: Sampling = "balanced"
    """balanced: slices without tumour half as often; all: each once; tumour: none without."""
    normalization: Normalization = "zscore"
    """Of each volume: by its brain's mean and deviation, by percentiles, or by its extremes."""
    neighbours: int = 0
    """Slices above, and as many below, whose FLAIR is shown too, 0 or more."""
    sequences: Sequences = "flair"
    """flair: FLAIR alone; all: T1, FLAIR and T1 with contrast medium."""
    split: Split = "patient"
    """slice: the wrong one, a patient's slices are in all parts; to see how that flatters."""
    epochs: int = 30
    """Passes over as many slices as there are in training, 1 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, size=32, width=1, neighbours=0)
        if self.size % 8:
            raise ValueError(f"--size must be a multiple of 8, got {self.size}")

    def network(self, channels: int, side: int) -> keras.Model:
        """A new U-Net for slices (side, side, channels), a small one in a smoke run."""
        width, depth = (min(4, self.width), 1) if self.smoke else (self.width, models.DEPTH)
        return models.build_unet(side, channels, width, depth)


def train(config: Config, data: Data, run: labkit.Run) -> keras.Model:
    """Fit a U-Net; return it with the weights of the epoch with the best validation Dice."""
    labkit.prepare(config.seed, labkit.fast_precision())
    shown = partial(
        inputs_of, normalization=config.normalization, neighbours=config.neighbours,
        sequences=config.sequences,
    )  # fmt: skip
    x, validation = shown(data.train), data.validation
    build = partial(config.network, x.shape[-1], x.shape[1])
    epochs = 2 if config.smoke else config.epochs
    sequence = batches.Batches(
        x, data.train.targets, BATCH_SIZE, config.seed, run.first_epoch,
        transform=move_head, draw=sampler(data.train.y, config.sampling),
    )  # fmt: skip
    model = build()
    rate = one_cycle(epochs * len(sequence))
    model.compile(keras.optimizers.Adam(rate), models.LOSSES[config.loss], jit_compile=False)
    model.fit(
        sequence,
        epochs=epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[
            models.PatientDice(shown(validation), validation.y, validation.groups, config.loss),
            run.keeps_best("val_dice", "max"),
            run.checkpoints(model),
        ],
        verbose=2 if config.smoke else "auto",
    )
    return restored(build, run.best_file, config.seed)


def evaluate(config: Config, model: keras.Model, data: Data) -> tuple[dict[str, float], np.ndarray]:
    """Final metrics and the probabilities (n, size, size) of the test slices.

    Thresholds and calibration are chosen on validation patients; the test is looked at once.
    """
    policy = (config.normalization, config.neighbours, config.sequences)
    chosen = choose(probabilities_of(model, inputs_of(data.validation, *policy)), data.validation)
    probabilities = probabilities_of(model, inputs_of(data.test, *policy))
    return chosen | score(probabilities, data.test, chosen), probabilities


def in_words(metrics: dict[str, float]) -> str:
    """The test result beside its floors, in Markdown."""
    return (
        f"{beside_floors(metrics, SHOWN, 'U-Net')}\n"
        f"- Dice is the mean over {metrics['patients']:.0f} patients, all slices of one as a "
        f"volume; 95 % interval over patients {metrics['dice_low']:.3f} to "
        f"{metrics['dice_high']:.3f}, the worst {metrics['dice_worst']:.3f}.\n"
        f"- Slices: {metrics['slices_with_tumour']:.0f} of {metrics['slices']:.0f} have a tumour; "
        f"AUROC {metrics['slice_auroc_low']:.3f} to {metrics['slice_auroc_high']:.3f}. At the cut "
        f"chosen on validation for a specificity of 0.9: sensitivity "
        f"{metrics['slice_sensitivity']:.3f} ({metrics['slice_sensitivity_low']:.3f} to "
        f"{metrics['slice_sensitivity_high']:.3f}), specificity {metrics['slice_specificity']:.3f} "
        f"({metrics['slice_specificity_low']:.3f} to {metrics['slice_specificity_high']:.3f}).\n"
        f"- Threshold {metrics['threshold']:.2f}, epoch {metrics['best_epoch']:.0f} and the cut "
        "were chosen on validation patients.\n"
        "- An exercise, no medical device.\n"
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, choose, evaluate once on test patients, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)  # before anything imports Keras
    data = load(config.data, config.smoke, config.dataset, config.size, config.split)
    name = f"unet{config.width}-adam-{config.loss}-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            model = train(config, data, run)
            metrics = {
                "train_seconds": run.seconds,
                "best_epoch": int(np.argmax(run.history["val_dice"])) + 1,
                "train_patients": len(np.unique(data.train.groups)),
                "train_slices": len(data.train),
                "parameters": model.count_params(),
            }
            model.save(run.folder / "model.keras")
            tested, probabilities = evaluate(config, model, data)
            metrics |= tested | baselines.floors(data, config.smoke)
            run.log_metrics(metrics)
            curves = figures.learning_curves(run.history, ["loss", "val_dice"])
            run.save_figure("learning_curves", curves)
            predicted = probabilities > metrics["threshold"]
            run.save_figure("overlays", gallery.patients_figure(data.test, predicted))
            run.save_report(name, in_words(run.metrics))
    print(f"\n{in_words(run.metrics)}")
    return run.metrics


if __name__ == "__main__":
    main()
