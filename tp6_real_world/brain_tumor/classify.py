"""Tumour or not, in 253 pictures from the web, once copies are kept on one side of the split?

    python tp6_real_world/brain_tumor/classify.py                       # Kaggle's yes and no
    python tp6_real_world/brain_tumor/classify.py --data-dir FOLDER     # a set of the same layout
    python tp6_real_world/brain_tumor/classify.py --smoke               # everything once
    python tp6_real_world/brain_tumor/classify.py --resume              # after an interruption

Repeated grouped cross-validation: seed s is repetition s // 5, fold s % 5; each picture is tested
once in a repetition, by a network that has seen no picture of its group (see `pictures.py`). There
is nothing to choose in a fold: the last epoch's weights are tested, at probability 0.5.

Three controls are trained alike: `ungrouped` splits without regard to copies; `random_labels` have
no relation to the pictures, so nothing above chance may be found; `masked_brain` shows only what
surrounds the head's middle, so what it finds is no tumour but where a picture comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import labkit
from labkit import Data, comparison
from labkit.arguments import fail
from labkit.comparison import Outcome
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.cross_validation import (
    FOLDS,
    Control,
    PicturePart,
    floors,
    folds_figure,
    load,
    out_of_fold,
    standardised,
)
from tp6_real_world.brain_tumor.preparation import move_picture
from tp6_real_world.brain_tumor.segmentation import one_cycle

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp6_real_world.brain_tumor.model")

NETWORK = "network"
CONFIGURATIONS: tuple[Control, ...] = (NETWORK, "ungrouped", "random_labels", "masked_brain")
COLUMNS = {
    "test_accuracy": "test %",
    "test_auroc": "AUROC",
    "validation_accuracy": "validation %",
    "train_accuracy": "training %",
    "train_seconds": "seconds",
}
BATCH_SIZE = 16


@dataclass(frozen=True)
class Config(comparison.Settings):
    """Settings of the cross-validation."""

    data_dir: Path | None = None
    """A folder of your own with yes and no, or Training and Testing, in place of Kaggle's."""
    seeds: int = 15
    """Folds that are tested, 2 or more: 5 are one repetition."""
    width: int = 16
    """Filters of the first convolution, 1 or more."""
    epochs: int = 60
    """Passes over the training pictures, 1 or more."""
    dropout: float = 0.3
    """Share of the features that a step drops, from 0 to below 1."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1, epochs=1, dropout=0)
        if self.dropout >= 1:
            raise ValueError(f"--dropout must be below 1, got {self.dropout}")

    def trials(self) -> list[Trial]:
        """The trainings, seed by seed; in a smoke run of two configurations."""
        return [
            Trial(
                configuration=name, seed=seed, dropout=self.dropout,
                width=min(4, self.width) if self.smoke else self.width,
                epochs=2 if self.smoke else self.epochs, smoke=self.smoke, resume=self.resume,
            )
            for seed in self.all_seeds
            for name in (CONFIGURATIONS[::2] if self.smoke else CONFIGURATIONS)
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One fold of one configuration."""

    width: int
    epochs: int
    dropout: float

    @property
    def run_name(self) -> str:
        """Architecture, configuration, loss and seed."""
        return f"residual{self.width}_{self.configuration}-adam-bce-s{self.seed}"


def study(trial: Trial, data: Data, run: labkit.Run) -> dict[str, float]:
    """Train on a fold's training pictures, test on its test pictures once, keep the logits."""
    labkit.prepare(trial.seed)
    x = standardised(data.train.x)
    blocks = 1 if trial.smoke else 3
    model = models.build_classifier(x.shape[1], trial.width, trial.dropout, blocks)
    sequence = batches.Batches(
        x, data.train.y[:, None].astype(np.float32), BATCH_SIZE, trial.seed, run.first_epoch,
        transform=move_picture,
    )  # fmt: skip
    rate = one_cycle(trial.epochs * len(sequence))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    model.fit(
        sequence,
        epochs=trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=0,
    )
    metrics = {"train_seconds": run.seconds}
    model.save(run.folder / "model.keras")
    test: PicturePart = data.test.open()
    for name, part in (("train", data.train), ("validation", data.validation), ("test", test)):
        logits = logits_of(model, part)
        metrics[f"{name}_accuracy"] = float(np.mean((logits > 0) == part.y))
        if len(np.unique(part.y)) == 2:
            metrics[f"{name}_auroc"] = measures.auroc(logits, part.y)
    np.savez(run.folder / "predictions.npz", rows=test.rows, logits=logits, truth=test.y)
    return metrics


def logits_of(model: keras.Model, part: PicturePart) -> np.ndarray:
    """Logits of "there is a tumour", (n,), the mean with those of the mirror images."""
    x = standardised(part.x)
    both = [model.predict(each, batch_size=64, verbose=0)[:, 0] for each in (x, x[:, :, ::-1])]
    return np.mean(both, axis=0)


# --- Conclusion ----------------------------------------------------------------------------------


def conclusions(
    outcomes: list[Outcome], groups: np.ndarray, copies: str
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Sentences with intervals over groups, and the figures in them, for each configuration."""
    sentences, found = [copies], {}
    for name in dict.fromkeys(outcome.configuration for outcome in outcomes):
        measured = out_of_fold([o.path for o in outcomes if o.configuration == name], groups)
        found[name] = measured
        sentences.append(
            f"{name}: {100 * measured['accuracy']:.1f} % "
            f"[{100 * measured['accuracy_low']:.1f}, {100 * measured['accuracy_high']:.1f}] of "
            f"{measured['pictures']:.0f} pictures right, AUROC {measured['auroc']:.3f} "
            f"[{measured['auroc_low']:.3f}, {measured['auroc_high']:.3f}], sensitivity "
            f"{measured['sensitivity_at_specificity_0.9']:.3f} at specificity 0.9; 95 % intervals "
            "over groups."
        )
        if name in ("random_labels", "masked_brain"):
            low, high = measured["auroc_low"], measured["auroc_high"]
            chance = "holds" if low <= 0.5 <= high else "does not hold"
            sentences.append(f"{name}: the interval of AUROC {chance} chance, 0.5.")
    return sentences, found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Cross-validate, compare, track; return the mean of every metric of every configuration."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)
    if config.data_dir and not config.data_dir.is_dir():
        fail(f"--data-dir must be a folder, got {config.data_dir}")
    data = load(config.data, config.smoke, config.seed, NETWORK, config.data_dir)
    everything = data.train.whole
    print(everything.in_words())
    with labkit.start_run(__file__, config, data.source, "residual_pictures-adam-bce") as run:
        if run.is_finished:
            return comparison.show_again(run)
        outcomes = comparison.run_trials(
            run, __file__, study,
            lambda trial: load(
                config.data, trial.smoke, trial.seed, trial.configuration, config.data_dir
            ),
            config.trials(), config.ray_address, "folds",
        )  # fmt: skip
        sentences, found = conclusions(outcomes, everything.groups, everything.in_words())
        run.save_figure("pictures", folds_figure(found))
        return comparison.conclude(
            run,
            f"Pictures: {FOLDS}-fold cross-validation by group of copies",
            outcomes,
            COLUMNS,
            sentences,
            floors(config.all_seeds, everything, config.smoke),
            {"intervals": found, "columns": COLUMNS},
            everything.pairs_in_words(),
        )


if __name__ == "__main__":
    main()
