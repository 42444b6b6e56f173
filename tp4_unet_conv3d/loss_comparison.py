"""Which loss finds small cells, and which converges soonest: six losses, the same images?

    python tp4_unet_conv3d/loss_comparison.py            # 6 losses x 3 seeds
    python tp4_unet_conv3d/loss_comparison.py --smoke    # everything once, in seconds
    python tp4_unet_conv3d/loss_comparison.py --resume   # go on after an interruption

The trainings are those of `unet_segmentation.py` with a narrow network and fewer images, all of
the same length, optimizer and schedule. The same seed means the same first weights, order and
augmentation, so losses are compared seed by seed. Epoch and threshold are chosen on validation for
each training, and each opens the test images once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import labkit
from labkit import Data, comparison, figures
from labkit.comparison import Outcome
from labkit.evidence import compare_questions, difference_in_words, values
from tp4_unet_conv3d import segmentation
from tp4_unet_conv3d.augmentation import turn
from tp4_unet_conv3d.models import DEPTH, build_unet
from tp4_unet_conv3d.scenes import LevelName
from tp4_unet_conv3d.segmentation import floors, load, probabilities_of, score

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
measures = labkit.lazy("tp4_unet_conv3d.metrics")

LOSSES = ("bce", "dice", "bce_and_dice", "tversky", "focal", "focal75")
"""Those of losses.py; MLflow's names have no plus."""
BASE = "bce"
"""What the others are compared to: the loss that ignores how small a target is."""
TRAINING_IMAGES = 400
BATCH_SIZE = 16
COLUMNS = {
    "dice": "Dice",
    "iou": "IoU",
    "small_object_dice": "Dice of small cells",
    "small_objects_missed": "small cells missed",
    "empty_images_kept_empty": "empty images kept empty",
    "epochs_to_dice_0.8": "epochs to validation Dice 0.8",
    "seconds_to_dice_0.8": "seconds to it",
    "threshold": "threshold",
}


@dataclass(frozen=True)
class Config(comparison.Settings):
    """Settings of the comparison."""

    level: LevelName = "standard"
    """Difficulty of the simulated cells."""
    width: int = 8
    """Filters at full resolution, 1 or more."""
    epochs: int = 10
    """Passes over the 400 training images in each training, 1 or more."""
    data: labkit.DataChoice = "auto"
    """auto and sample: simulated cells; there is no other choice here."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1, epochs=1)
        if self.data == "real":
            raise ValueError("--data real: the losses are compared on simulated cells")

    def trials(self) -> list[Trial]:
        """The trainings, seed by seed."""
        return [
            Trial(
                configuration=loss, seed=seed, level=self.level,
                width=min(4, self.width) if self.smoke else self.width,
                epochs=2 if self.smoke else self.epochs,
                precision=labkit.fast_precision(), smoke=self.smoke, resume=self.resume,
            )
            for seed in self.all_seeds
            for loss in (LOSSES[:2] if self.smoke else LOSSES)
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One training with one loss."""

    level: LevelName
    width: int
    epochs: int
    precision: str

    @property
    def loss(self) -> str:
        """As losses.py calls it."""
        return self.configuration.replace("_and_", "+")

    @property
    def run_name(self) -> str:
        """Architecture, optimizer, loss and seed."""
        return f"unet{self.width}-adam-{self.loss}-s{self.seed}"


def study(trial: Trial, data: Data, run: labkit.Run) -> dict[str, float]:
    """Train with the trial's loss, choose epoch and threshold on validation, open test once."""
    labkit.prepare(trial.seed, trial.precision)
    build = partial(build_unet, trial.width, 1 if trial.smoke else DEPTH)
    training, validation = data.train, data.validation
    sequence = batches.Batches(
        training.x, training.targets, 8 if trial.smoke else BATCH_SIZE, trial.seed,
        run.first_epoch, transform=turn,
    )  # fmt: skip
    rate = segmentation.one_cycle(trial.epochs * len(sequence))
    adam = keras.optimizers.Adam(rate)
    model = segmentation.compile_logits(build(), trial.loss, adam, trial.smoke)
    model.fit(
        sequence,
        validation_data=(validation.x, validation.targets),
        epochs=trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=segmentation.callbacks(model, run),
        verbose=0,
    )
    metrics = {"train_seconds": run.history["seconds"][-1], **segmentation.convergence(run.history)}
    model = segmentation.restored(build, run.best_file, trial.loss, trial.seed)
    model.save(run.folder / "model.keras")
    probabilities = probabilities_of(model, validation.x)
    metrics["threshold"] = measures.choose_threshold(probabilities, validation.masks)
    metrics["validation_dice"] = max(run.history["val_dice"])
    test = data.test.open()
    return metrics | score(probabilities_of(model, test.x), test, metrics["threshold"])


# --- Conclusion ----------------------------------------------------------------------------------


def conclusions(outcomes: list[Outcome]) -> list[str]:
    """Which losses converge, and which differ from `BASE`: sentences computed from the figures."""
    sentences = []
    reached = values(outcomes, "epochs_to_dice_0.8")
    for loss, dice in values(outcomes, "validation_dice").items():
        told = f"{loss}: {len(reached[loss])} of {len(dice)} trainings reach validation Dice 0.8"
        if reached[loss]:
            told += f", after {np.mean(reached[loss]):.1f} epochs in the mean"
        sentences.append(f"{told}; the best epoch's is {np.mean(dice):.3f} in the mean.")
    questions = {}
    for metric, name in (("dice", "Dice"), ("small_object_dice", "Dice of small cells")):
        samples = values(outcomes, metric)
        seeds = len(samples[BASE])
        whole = {loss: sample for loss, sample in samples.items() if len(sample) == seeds > 1}
        if BASE in whole:
            questions[name] = (whole, BASE)
    for name, pairs in zip(questions, compare_questions(list(questions.values())), strict=True):
        sentences += [difference_in_words(pair, name) for pair in pairs]
    return [sentence.replace("_and_", "+") for sentence in sentences]


def curves_figure(outcomes: list[Outcome]) -> figures.Figure:
    """Validation Dice after each epoch, mean and range over seeds; Dice of all and small cells."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4.4))
    losses = list(values(outcomes, "dice"))
    for index, loss in enumerate(losses):
        runs = [o.history["val_dice"] for o in outcomes if o.configuration == loss]
        epochs = np.arange(1, len(runs[0]) + 1)
        label = loss.replace("_and_", "+")
        left.plot(epochs, np.mean(runs, axis=0), marker=".", label=label)
        left.fill_between(epochs, np.min(runs, axis=0), np.max(runs, axis=0), alpha=0.12)
        for place, metric in enumerate(("dice", "small_object_dice")):
            sample = values(outcomes, metric)[loss]
            x = place + 0.12 * (index - (len(losses) - 1) / 2)
            right.plot([x] * len(sample), sample, "_", color=f"C{index}")
            right.plot(x, np.mean(sample), "o", color=f"C{index}", label=None if place else label)
    left.axhline(0.8, color="0.6", linestyle=":", linewidth=1)
    left.set(xlabel="epoch", title="Validation Dice (at 0.5), mean and range", ylim=(0, 1))
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=8, loc="lower right")
    right.set_xticks([0, 1], ["test images", "small cells"])
    right.set(title="Dice of each seed, and the means", xlim=(-0.5, 1.5))
    right.legend(fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all, compare, track; return the mean of every metric of every loss."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)
    data = load(config.data, config.smoke, config.level, TRAINING_IMAGES)
    with labkit.start_run(__file__, config, data.source, "unet_losses-adam-compared") as run:
        if run.is_finished:
            return comparison.show_again(run)
        trials = config.trials()
        outcomes = comparison.run_trials(
            run, __file__, study,
            lambda trial: load(config.data, trial.smoke, trial.level, TRAINING_IMAGES),
            trials, config.ray_address, "losses",
        )  # fmt: skip
        run.save_figure("losses", curves_figure(outcomes))
        metrics, _ = floors(data)
        run.log_metrics(metrics)
        return comparison.conclude(
            run,
            f"Losses of a U-Net: width {trials[0].width}, {trials[0].epochs} epochs",
            outcomes,
            COLUMNS,
            conclusions(outcomes),
            {name: value for name, value in metrics.items() if name.startswith("floor_")},
            {"training_images": TRAINING_IMAGES, "columns": COLUMNS},
        )


if __name__ == "__main__":
    main()
