"""Which choice matters: slices, normalisation, sequences, neighbours, loss, or the split itself?

    python tp6_real_world/brain_tumor/ablation.py             # ten configurations, three seeds
    python tp6_real_world/brain_tumor/ablation.py --smoke     # everything once, in seconds
    python tp6_real_world/brain_tumor/ablation.py --resume    # go on after an interruption

Each configuration is `base` with one thing changed, a smaller network on smaller slices than in
`train.py`, the same number of steps. Epoch and thresholds are chosen on validation patients for
each training, and each opens the test slices once. Two are no candidates but controls:

- `slice_split` puts a patient's slices into all three parts, so its test is another, leaky one;
- `shuffled_masks` learns from masks of other slices: it must not find anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

import labkit
from labkit import Data, comparison, figures
from labkit.comparison import Outcome
from labkit.evidence import compare_questions, difference_in_words, percent, values
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import Slices, Split, load
from tp6_real_world.brain_tumor.floors import simple_floors
from tp6_real_world.brain_tumor.preparation import (
    Normalization,
    Sampling,
    move_head,
    sampler,
    with_hot_voxel,
)
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

BASE = "base"
CHANGES: dict[str, dict[str, str | int | bool]] = {
    BASE: {},
    "all_slices": {"sampling": "all"},
    "tumour_slices": {"sampling": "tumour"},
    "percentile": {"normalization": "percentile"},
    "minmax": {"normalization": "minmax"},
    "all_sequences": {"sequences": "all"},
    "neighbours": {"neighbours": 1},
    "cross_entropy": {"loss": "bce"},
    "slice_split": {"split": "slice"},
    "shuffled_masks": {"shuffled": True},
}
"""What each configuration has other than `base`."""
CONTROLS = ("slice_split", "shuffled_masks")
COLUMNS = {
    "dice": "Dice",
    "dice_hot_voxel": "Dice with a hot voxel",
    "slice_auroc": "AUROC of slices",
    "slice_sensitivity": "sensitivity",
    "slice_specificity": "specificity",
    "threshold": "threshold",
}


@dataclass(frozen=True)
class Config(comparison.Settings):
    """Settings of the comparison."""

    size: int = 96
    """Side of a slice, pixels: a multiple of 8, 32 or more."""
    width: int = 8
    """Filters at full resolution, 1 or more."""
    epochs: int = 20
    """Passes over as many slices as there are in training, 1 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, size=32, width=1, epochs=1)
        if self.size % 8:
            raise ValueError(f"--size must be a multiple of 8, got {self.size}")

    def trials(self) -> list[Trial]:
        """The trainings, seed by seed; in a smoke run of two configurations."""
        smoke = {name: CHANGES[name] for name in (BASE, "slice_split")}
        return [
            Trial(
                configuration=name, seed=seed, data=self.data, size=self.size,
                width=min(4, self.width) if self.smoke else self.width,
                epochs=2 if self.smoke else self.epochs,
                precision=labkit.fast_precision(), smoke=self.smoke, resume=self.resume, **changes,
            )
            for seed in self.all_seeds
            for name, changes in (smoke if self.smoke else CHANGES).items()
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One training with one policy changed."""

    data: labkit.DataChoice
    size: int
    width: int
    epochs: int
    precision: str
    sampling: Sampling = "balanced"
    normalization: Normalization = "zscore"
    sequences: Sequences = "flair"
    neighbours: int = 0
    loss: str = "bce+dice"
    split: Split = "patient"
    shuffled: bool = False

    @property
    def run_name(self) -> str:
        """Architecture, configuration, loss and seed."""
        return f"unet{self.width}_{self.configuration}-adam-{self.loss}-s{self.seed}"


def study(trial: Trial, data: Data, run: labkit.Run) -> dict[str, float]:
    """Train one configuration, choose epoch and thresholds on validation, open the test once."""
    labkit.prepare(trial.seed, trial.precision)
    policy = (trial.normalization, trial.neighbours, trial.sequences)
    training, validation = data.train, data.validation
    if trial.shuffled:
        order = np.random.default_rng(trial.seed).permutation(len(training))
        training = replace(training, y=training.y[order])
    x, known = inputs_of(training, *policy), inputs_of(validation, *policy)
    depth = 1 if trial.smoke else models.DEPTH
    build = partial(models.build_unet, x.shape[1], x.shape[-1], trial.width, depth)
    sequence = batches.Batches(
        x, training.targets, BATCH_SIZE, trial.seed, run.first_epoch,
        transform=move_head, draw=sampler(training.y, trial.sampling),
    )  # fmt: skip
    model = build()
    rate = one_cycle(trial.epochs * len(sequence))
    model.compile(keras.optimizers.Adam(rate), models.LOSSES[trial.loss], jit_compile=False)
    model.fit(
        sequence,
        epochs=trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[
            models.PatientDice(known, validation.y, validation.groups, trial.loss),
            run.keeps_best("val_dice", "max"),
            run.checkpoints(model),
        ],
        verbose=0,
    )
    seconds = run.seconds
    model = restored(build, run.best_file, trial.seed)
    model.save(run.folder / "model.keras")
    chosen = choose(probabilities_of(model, known), validation)
    test: Slices = data.test.open()
    hot = replace(test, x=with_hot_voxel(test.x, test.groups))
    tested, stressed = (probabilities_of(model, inputs_of(p, *policy)) for p in (test, hot))
    dice, _ = measures.overlap(stressed > chosen["threshold"], test.y, test.groups)
    metrics = {"train_seconds": seconds, "dice_hot_voxel": float(np.nanmean(dice))}
    return metrics | chosen | score(tested, test, chosen)


# --- Conclusion ----------------------------------------------------------------------------------


def conclusions(outcomes: list[Outcome]) -> list[str]:
    """What differs from `base`, under one adjustment for all questions; what the controls say."""
    sentences = []
    questions = {"dice": "Dice", "slice_auroc": "AUROC of slices", "dice_hot_voxel": "Dice with a "
                 "hot voxel"}  # fmt: skip
    samples = {
        metric: {n: v for n, v in values(outcomes, metric).items() if n not in CONTROLS}
        for metric in questions
    }
    for metric, pairs in zip(
        questions, compare_questions([(sample, BASE) for sample in samples.values()]), strict=True
    ):
        sentences += [difference_in_words(pair, questions[metric]) for pair in pairs]
    dice, auroc = values(outcomes, "dice"), values(outcomes, "slice_auroc")
    if "slice_split" in dice:
        sentences.append(
            f"Split by slice, Dice is {np.mean(dice['slice_split']):.3f} in place of "
            f"{np.mean(dice[BASE]):.3f}, AUROC {np.mean(auroc['slice_split']):.3f} in place of "
            f"{np.mean(auroc[BASE]):.3f}: other test slices, of patients seen in training."
        )
    if "shuffled_masks" in auroc:
        sentences.append(
            f"Trained on other slices' masks: AUROC {percent(auroc['shuffled_masks'], 1)} over "
            f"seeds, chance 50 %; Dice {np.mean(dice['shuffled_masks']):.3f}."
        )
    return sentences


def policies_figure(outcomes: list[Outcome]) -> figures.Figure:
    """Dice and AUROC of each configuration: each seed's, and the mean."""
    figure, axes = figures.subplots(1, 2, size=(11, 4.6))
    panels = (("dice", "Dice of patients"), ("slice_auroc", "AUROC of slices"))
    for axis, (metric, title) in zip(axes, panels, strict=True):
        samples = values(outcomes, metric)
        for height, (name, sample) in enumerate(reversed(samples.items())):
            colour = "C1" if name in CONTROLS else "C0"
            axis.plot(sample, [height] * len(sample), "|", color=colour, markersize=12)
            axis.plot(np.mean(sample), height, "o", color=colour)
        axis.axvline(np.mean(samples[BASE]), color="0.6", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(samples)), [name.replace("_", " ") for name in reversed(samples)])
        axis.set(title=title)
    figure.suptitle("One thing changed at a time; orange: controls", fontsize=9)
    return figure


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all, compare, track; return the mean of every metric of every configuration."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)
    remembered = lru_cache(maxsize=2)(
        lambda split: load(config.data, config.smoke, "lgg", config.size, split)
    )
    data = remembered("patient")
    with labkit.start_run(__file__, config, data.source, "unet_policies-adam-compared") as run:
        if run.is_finished:
            return comparison.show_again(run)
        outcomes = comparison.run_trials(
            run, __file__, study, lambda trial: remembered(trial.split), config.trials(),
            config.ray_address, "policies",
        )  # fmt: skip
        run.save_figure("policies", policies_figure(outcomes))
        return comparison.conclude(
            run,
            f"Policies for a U-Net of width {config.width}, {config.size} pixels",
            outcomes,
            COLUMNS,
            conclusions(outcomes),
            {n: v for n, v in simple_floors(data).items() if n.startswith("floor_")},
            {"changes": CHANGES, "columns": COLUMNS},
        )


if __name__ == "__main__":
    main()
