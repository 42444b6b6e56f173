"""Does a U-Net of volumes learn sooner, and find more, than one of single slices?

    python tp4_unet_conv3d/volume_segmentation.py                  # tubes among rods, simulated
    python tp4_unet_conv3d/volume_segmentation.py --data real      # whole MRI volumes
    python tp4_unet_conv3d/volume_segmentation.py --smoke          # everything once, in seconds
    python tp4_unet_conv3d/volume_segmentation.py --resume         # go on after an interruption

Three U-Nets see the same volumes in the same order: `slices`, whose kernels are 1x3x3, `volumes` of
the same widths, whose kernels are 3x3x3 and hold three times the weights, and `wide_slices`, with
1x3x3 kernels again but as many weights as `volumes`. A pass over the volumes doesn't cost them the
same, so both clocks are kept: epochs, and seconds. Epoch and threshold are chosen on validation for
each training, and each opens the test volumes once. All are scored volume by volume.

README.md has the figures and the time on two cores.

References: Ronneberger et al. (MICCAI 2015), Çiçek et al. (MICCAI 2016) for the 3-D U-Net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

import labkit
from labkit import comparison, figures, lgg
from labkit.datasets import Data, Part
from labkit.evidence import values
from labkit.results import in_words
from tp4_unet_conv3d import segmentation
from tp4_unet_conv3d.models import build_volume_unet, forward_flops
from tp4_unet_conv3d.volumes import tubes

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")
augmentation = labkit.lazy("tp4_unet_conv3d.augmentation")
batches = labkit.lazy("labkit.batches")

NETWORKS = {"slices": (1, 1.0), "volumes": (3, 1.0), "wide_slices": (1, math.sqrt(3))}
"""Depth of the kernels, and how many times the width: the weights grow with its square."""
LOSS = "bce+dice"
COUNTS = {"train": 300, "validation": 60, "test": 150}
SMOKE_COUNTS = {"train": 4, "validation": 4, "test": 4}
TARGET = segmentation.TARGET_DICE
EPOCHS_TO, SECONDS_TO = f"epochs_to_dice_{TARGET}", f"seconds_to_dice_{TARGET}"
COLUMNS = {
    "dice": "Dice by volume",
    "iou": "IoU",
    "boundary_f1": "contours F1, slices",
    EPOCHS_TO: f"epochs to validation Dice {TARGET}",
    SECONDS_TO: "seconds to it",
    "train_seconds": "seconds",
}


@dataclass(frozen=True)
class Config(comparison.Settings):
    """Settings of the comparison."""

    data: labkit.DataChoice = "auto"
    """real: whole FLAIR volumes below LABKIT_DATA, or an error; auto and sample: simulated."""
    width: int = 8
    """Filters at full resolution, 1 or more."""
    epochs: int | None = None
    """Passes over the training volumes, 1 or more; if not given 12, on MRI 40."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1, epochs=1)

    def trials(self) -> list[Trial]:
        """All networks with every seed."""
        shared = ("data", "width", "epochs", "smoke", "resume")
        settings = {name: getattr(self, name) for name in shared}
        return [
            Trial(configuration=network, seed=seed, **settings)
            for seed in self.all_seeds
            for network in list(NETWORKS)[: 2 if self.smoke else None]
        ]


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One training of the network `configuration`."""

    data: labkit.DataChoice
    width: int
    epochs: int | None

    @property
    def run_name(self) -> str:
        """Such as `unet_volumes8-adam-bce+dice-s0`."""
        return f"unet_{self.configuration}{self.width}-adam-{LOSS}-s{self.seed}"

    @property
    def passes(self) -> int:
        """Epochs of this training."""
        return 2 if self.smoke else self.epochs or (40 if self.data == "real" else 12)

    @property
    def batch_size(self) -> int:
        """Volumes in a batch: MRI volumes are nine times as large."""
        return 2 if self.data == "real" else 4


# --- Data ----------------------------------------------------------------------------------------


class Volumes(Part):
    """Volumes `x` (n, d, h, w, 1) float32 and their masks `y` (n, d, h, w) bool."""

    @property
    def targets(self) -> np.ndarray:
        """(n, d, h, w, 1) float32."""
        return self.y[..., None].astype(np.float32)

    def slices(self) -> segmentation.SegmentationPart:
        """The same as slices (n d, h, w), which are scored together by volume."""
        count, depth, height, width = self.y.shape
        return segmentation.SegmentationPart(
            self.x.reshape(-1, height, width, 1),
            self.y.reshape(-1, height, width).astype(np.uint8),
            np.repeat(np.arange(count), depth),
        )


@lru_cache(maxsize=1)
def load(choice: labkit.DataChoice, smoke: bool) -> Data:
    """Whole MRI volumes where `choice` is `real`, otherwise simulated tubes; parts are `Volumes`.

    Leaves with exit code 2 where the MRI volumes can't be had.
    """
    if choice == "real":
        found, source = lgg.load_volumes(2 if smoke else None)
        return Data(source, **{part: Volumes(*arrays) for part, arrays in found.items()})
    counts = SMOKE_COUNTS if smoke else COUNTS
    drawn = {part: tubes(count, stream) for stream, (part, count) in enumerate(counts.items())}
    parts = {
        part: Volumes(grey[..., None] / np.float32(128) - 1, masks)
        for part, (grey, masks) in drawn.items()
    }
    return Data("simulated:tubes", **parts)


# --- Training ------------------------------------------------------------------------------------


def study(trial: Trial, data: Data, run: labkit.Run) -> dict[str, float]:
    """Train a U-Net; choose epoch and threshold on validation, open the test volumes once."""
    labkit.prepare(trial.seed)
    depth, factor = NETWORKS[trial.configuration]
    width = 2 if trial.smoke else round(factor * trial.width)
    build = partial(build_volume_unet, data.train.y.shape[1:], width, depth)
    sequence = batches.Batches(
        data.train.x, data.train.targets, trial.batch_size, trial.seed, run.first_epoch,
        augmentation.mirror,
    )  # fmt: skip
    rate = segmentation.one_cycle(trial.passes * len(sequence))
    adam = keras.optimizers.Adam(rate)
    model = segmentation.compile_logits(build(), LOSS, adam, trial.smoke)
    model.fit(
        sequence,
        validation_data=(data.validation.x, data.validation.targets),
        validation_batch_size=trial.batch_size,
        epochs=trial.passes,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=segmentation.callbacks(model, run),
        verbose=0,
    )
    model = segmentation.restored(build, run.best_file, LOSS, trial.seed)
    model.save(run.folder / "model.keras")
    validation = data.validation.slices()
    probabilities = segmentation.probabilities_of(model, data.validation.x, trial.batch_size)
    threshold = measures.choose_threshold(probabilities, validation.masks, validation.groups)
    test = data.test.open()
    probabilities = segmentation.probabilities_of(model, test.x, trial.batch_size)
    np.save(run.folder / "answers.npy", np.packbits(probabilities > threshold))
    return {
        "train_seconds": run.history["seconds"][-1],
        **segmentation.convergence(run.history),
        "parameters": model.count_params(),
        "gigaflop_per_volume": forward_flops(model) / 1e9,
        "threshold": threshold,
        "best_epoch": int(np.argmax(run.history["val_dice"])) + 1,
        "validation_dice": max(run.history["val_dice"]),
        **score(probabilities, test.slices(), threshold),
    }


def score(
    probabilities: np.ndarray, slices: segmentation.SegmentationPart, threshold: float
) -> dict[str, float]:
    """Dice and IoU of volumes, and what slices don't show: contours and empty slices."""
    predicted, masks = probabilities > threshold, slices.masks
    dice, iou = measures.overlap(predicted, masks, slices.groups)
    low, high = measures.bootstrap_interval(dice)
    kept, empty = measures.kept_empty(predicted, masks)
    metrics = {
        "dice": np.nanmean(dice), "dice_low": low, "dice_high": high, "iou": np.nanmean(iou),
        "boundary_f1": np.nanmean(measures.boundary_f1(predicted, masks)),
        "empty_slices": empty, "empty_slices_kept_empty": kept,
    }  # fmt: skip
    return {name: float(value) for name, value in metrics.items()}


# --- Conclusion ----------------------------------------------------------------------------------


def conclusions(outcomes: list[comparison.Outcome]) -> list[str]:
    """What the figures allow to say, computed from them."""
    dice, seconds = values(outcomes, "dice"), values(outcomes, "train_seconds")
    found = []
    for network in dice:
        if network != "volumes":
            above = min(dice["volumes"]) > max(dice[network])
            ratio = np.divide(seconds["volumes"], seconds[network])
            found.append(
                f"volumes against {network}: Dice {in_words(dice['volumes'])} and "
                f"{in_words(dice[network])}, "
                + ("every seed of the first above every seed of the second"
                   if above else "the seeds overlap or the second is ahead")
                + f"; an epoch takes {in_words(list(ratio), 1)} times as long."
            )  # fmt: skip
    for network in dice:
        epochs, clock = (values(outcomes, metric)[network] for metric in (EPOCHS_TO, SECONDS_TO))
        runs = len(dice[network])
        told = f"{network}: {len(epochs)} of {runs} trainings reach validation Dice {TARGET}"
        if epochs:
            told += f", after {np.mean(epochs):.1f} epochs and {np.mean(clock):.0f} s in the mean"
        found.append(f"{told}.")
    return found


def curves_figure(outcomes: list[comparison.Outcome]) -> figures.Figure:
    """Validation Dice of every training, against epochs and against seconds."""
    figure, axes = figures.subplots(1, 2, size=(11, 4.2))
    for outcome in outcomes:
        history, place = outcome.history, list(NETWORKS).index(outcome.configuration)
        first = outcome.trial.seed == outcomes[0].trial.seed
        label = outcome.configuration.replace("_", " ") if first else None
        epochs = np.arange(1, len(history["val_dice"]) + 1)
        for axis, x in zip(axes, (epochs, history["seconds"]), strict=True):
            axis.plot(x, history["val_dice"], ".-", color=f"C{place}", alpha=0.8, label=label)
    for axis, name in zip(axes, ("epoch", "seconds, validation included"), strict=True):
        axis.axhline(TARGET, color="0.6", linestyle=":", linewidth=1)
        axis.set(xlabel=name, ylim=(0, 1), title="Validation Dice (by volume, at 0.5)")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(loc="lower right")
    return figure


def predictions_figure(outcomes: list[comparison.Outcome], test: Volumes) -> figures.Figure:
    """Slices of the first two test volumes: truth, and the networks' predictions of one seed."""
    slices, depth = test.slices(), test.y.shape[1]
    depths = np.linspace(0.2, 0.8, 5) * depth
    chosen = np.concatenate([depths.astype(int), depth + depths.astype(int)])
    predictions = {"truth": slices.masks}
    for outcome in outcomes:
        if outcome.trial.seed != outcomes[0].trial.seed:
            continue
        packed = np.load(outcome.path / "answers.npy")
        bits = np.unpackbits(packed, count=slices.masks.size)
        predictions[outcome.configuration] = bits.reshape(slices.masks.shape).astype(bool)
    titles = [f"volume {index // depth}\nslice {index % depth}" for index in chosen]
    return segmentation.overlay_figure(slices, predictions, chosen, titles)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all, compare, track; return the mean of every metric of each network."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke)
    name = f"unet_volumes{config.width}-adam-{LOSS}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if run.is_finished:
            return comparison.show_again(run)
        trials = config.trials()
        outcomes = comparison.run_trials(
            run, __file__, study, lambda trial: load(trial.data, trial.smoke),
            trials, config.ray_address, "networks",
        )  # fmt: skip
        run.save_figure("curves", curves_figure(outcomes))
        run.save_figure("answers", predictions_figure(outcomes, data.test))
        parts = {part: getattr(data, part).slices() for part in ("train", "validation", "test")}
        found, _ = segmentation.floors(replace(data, **parts))
        run.log_metrics(found)
        return comparison.conclude(
            run, "A U-Net of slices against one of volumes", outcomes, COLUMNS,
            conclusions(outcomes),
            {name: value for name, value in found.items() if name.startswith("floor_")},
            {"epochs": trials[0].passes},
        )  # fmt: skip


if __name__ == "__main__":
    main()
