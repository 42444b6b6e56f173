"""Which loss finds small cells, and which converges soonest: five losses, the same images?

    python tp4_unet_conv3d/loss_comparison.py            # 5 losses x 3 seeds
    python tp4_unet_conv3d/loss_comparison.py --smoke    # everything once, in seconds
    python tp4_unet_conv3d/loss_comparison.py --resume   # go on after an interruption

The trainings are those of `unet_segmentation.py` with a narrow network and fewer images, all of
the same length, optimizer and schedule. The same seed means the same first weights, order and
augmentation, so losses are compared seed by seed. Epoch and threshold are chosen on validation for
each training, and each opens the test images once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

import labkit
from labkit import figures
from labkit.results import in_words
from tp4_unet_conv3d.models import build_unet
from tp4_unet_conv3d.scenes import LevelName
from tp4_unet_conv3d.unet_segmentation import Config as Trial
from tp4_unet_conv3d.unet_segmentation import (
    Part,
    convergence,
    floors,
    load,
    probabilities_of,
    restored,
    score,
    train,
)

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")
stats = labkit.lazy("scipy.stats")

LOSSES = ("bce", "dice", "bce+dice", "tversky", "focal")
BASE = "bce"
"""What the others are compared to: the loss that ignores how small a target is."""
TRAINING_IMAGES = 400
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
class Config:
    """Settings of the comparison."""

    level: LevelName = "standard"
    """Difficulty of the simulated cells."""
    width: int = 8
    """Filters at full resolution, 1 or more."""
    epochs: int = 10
    """Passes over the 400 training images in each training, 1 or more."""
    seeds: int = 3
    """Trainings of each loss, 2 or more: one alone has no spread."""
    seed: int = 0
    """The first seed; the others follow it."""
    data: labkit.DataChoice = "auto"
    """auto and sample: simulated cells; there is no other choice here."""
    ray_address: str = "auto"
    """auto: Ray Tune where it is installed and two trainings fit side by side, else one after the
    other; off: one after the other; local: Ray on this machine; or a cluster's address."""
    smoke: bool = False
    """One seed, two losses, one epoch on few images: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, width=1, epochs=1, seeds=2, seed=0)
        if self.data == "real":
            raise ValueError("--data real: the losses are compared on simulated cells")

    def trials(self) -> list[Trial]:
        """The trainings, seed by seed."""
        return [
            Trial(
                data="sample", level=self.level, loss=loss, seed=seed,
                width=min(2, self.width) if self.smoke else self.width,
                epochs=1 if self.smoke else self.epochs,
                precision=labkit.fast_precision(), smoke=self.smoke, resume=self.resume,
            )
            for seed in range(self.seed, self.seed + (1 if self.smoke else self.seeds))
            for loss in (LOSSES[:2] if self.smoke else LOSSES)
        ]  # fmt: skip


@lru_cache(maxsize=1)
def load_parts(level: str, smoke: bool) -> dict[str, Part]:
    """The parts, the training one cut to its first images."""
    parts, _ = load(Trial(data="sample", level=level, smoke=smoke))
    first = slice(TRAINING_IMAGES)
    whole = parts["train"]
    cut = Part(whole.inputs[first], whole.instances[first], whole.groups[first])
    return parts | {"train": cut}


def run_trial(parent: str, trial: Trial) -> dict:
    """Train once as a child of the MLflow run `parent`, or find it finished; what was measured."""
    labkit.prepare(trial.seed, trial.precision)
    parts = load_parts(trial.level, trial.smoke)
    name = f"unet{trial.width}-adam-{trial.loss}-s{trial.seed}"
    source = f"simulated:{trial.level}"
    with labkit.start_run(__file__, trial, source, name, parent, "trial") as run:
        if not run.is_finished:
            labkit.prepare(trial.seed, trial.precision)
            model = build_unet(trial.width)
            train(model, trial, parts["train"], parts["validation"], run, verbose=0)
            metrics = {"train_seconds": run.history["seconds"][-1], **convergence(run.history)}
            twin = restored(run.best_file, trial)
            validation, test = parts["validation"], parts["test"]
            probabilities = probabilities_of(twin, validation.inputs)
            metrics["threshold"] = measures.choose_threshold(probabilities, validation.masks)
            metrics["validation_dice"] = max(run.history["val_dice"])
            probabilities = probabilities_of(twin, test.inputs)
            run.log_metrics(metrics | score(probabilities, test, metrics["threshold"]))
            twin.save(run.folder / "model.keras")
    return {
        "loss": trial.loss,
        "seed": trial.seed,
        "metrics": run.metrics,
        "history": run.history,
        "folder": f"{run.folder.parent.name}/{run.folder.name}",  # below outputs/, which may move
    }


# --- Conclusion ----------------------------------------------------------------------------------


def values(outcomes: list[dict], metric: str) -> dict[str, list[float]]:
    """`metric` of each loss, over the seeds that have it: a target may never be reached."""
    found: dict[str, list[float]] = {outcome["loss"]: [] for outcome in outcomes}
    for outcome in outcomes:
        if metric in outcome["metrics"]:
            found[outcome["loss"]].append(outcome["metrics"][metric])
    return found


def conclusions(outcomes: list[dict]) -> list[str]:
    """Which losses converge, and which differ from `BASE`: sentences computed from the figures."""
    sentences = []
    reached = values(outcomes, "epochs_to_dice_0.8")
    best = values(outcomes, "validation_dice")
    for loss, dice in best.items():
        told = f"{loss}: {len(reached[loss])} of {len(dice)} trainings reach validation Dice 0.8"
        if reached[loss]:
            told += f", after {np.mean(reached[loss]):.1f} epochs in the mean"
        sentences.append(f"{told}; the best epoch's is {np.mean(dice):.3f} in the mean.")
    for metric, name in (("dice", "Dice"), ("small_object_dice", "Dice of small cells")):
        samples = values(outcomes, metric)
        for loss, sample in samples.items():
            if loss == BASE or not 1 < len(sample) == len(samples[BASE]):
                continue
            differences = np.subtract(sample, samples[BASE])
            mean, error = differences.mean(), stats.sem(differences)
            reach = error * stats.t.ppf(0.975, len(differences) - 1)
            word = "above" if mean > 0 else "below"
            told = (
                f"{loss} is {word} {BASE}" if abs(mean) > reach
                else f"{loss} and {BASE} can't be told apart"
            )  # fmt: skip
            sentences.append(
                f"{name}: {told}, {mean:+.3f} [{mean - reach:+.3f}, {mean + reach:+.3f}] "
                f"(paired, {len(sample)} seeds, not corrected for the number of losses)."
            )
    return sentences


def table(outcomes: list[dict]) -> str:
    """Markdown, a row a loss: mean ± standard deviation over seeds."""
    lines = ["| loss | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for loss in values(outcomes, "dice"):
        cells = []
        for metric in COLUMNS:
            sample = values(outcomes, metric)[loss]
            cells.append(in_words(sample, 3 if np.max(sample, initial=0) <= 1 else 1))
        lines.append(f"| {loss} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curves_figure(outcomes: list[dict]) -> figures.Figure:
    """Validation Dice after each epoch, mean and range over seeds; Dice of all and small cells."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4.4))
    losses = list(values(outcomes, "dice"))
    for index, loss in enumerate(losses):
        runs = [outcome["history"]["val_dice"] for outcome in outcomes if outcome["loss"] == loss]
        epochs = np.arange(1, len(runs[0]) + 1)
        left.plot(epochs, np.mean(runs, axis=0), marker=".", label=loss)
        left.fill_between(epochs, np.min(runs, axis=0), np.max(runs, axis=0), alpha=0.12)
        for place, metric in enumerate(("dice", "small_object_dice")):
            sample = values(outcomes, metric)[loss]
            x = place + 0.12 * (index - (len(losses) - 1) / 2)
            right.plot([x] * len(sample), sample, "_", color=f"C{index}")
            right.plot(x, np.mean(sample), "o", color=f"C{index}", label=None if place else loss)
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
    name = "unet_losses-adam-compared"
    with labkit.start_run(__file__, config, f"simulated:{config.level}", name) as run:
        if run.is_finished:
            print(f"\n{(run.folder / 'report.md').read_text()}")
            return run.metrics
        trials = config.trials()
        function = partial(run_trial, run.mlflow_id)
        outcomes = labkit.fan_out(function, trials, config.ray_address, "losses")
        floor_values, _ = floors(load_parts(config.level, config.smoke))
        series = {
            f"{loss.replace('+', '_and_')}/{metric}": sample  # MLflow's names have no plus
            for metric in dict.fromkeys(key for outcome in outcomes for key in outcome["metrics"])
            for loss, sample in values(outcomes, metric).items()
            if sample
        }
        sentences = conclusions(outcomes)
        seeds = sorted({trial.seed for trial in trials})
        text = (
            f"# Losses of a U-Net\n\nData: {run.state['data_source']}, width {trials[0].width}, "
            f"{trials[0].epochs} epochs. Seeds {seeds}; mean ± standard deviation.\n\n"
            f"{table(outcomes)}\n"
            + "".join(
                f"- floor, {key.removeprefix('floor_').replace('_', ' ')}: Dice {value:.3f}\n"
                for key, value in floor_values.items()
            )
            + "\n"
            + "".join(f"- {sentence}\n" for sentence in sentences)
        )
        print(f"\n{text}")
        run.save_text("report.md", text)
        content = {
            "seeds": seeds,
            "series": series,
            "floors": floor_values,
            "conclusions": sentences,
            "details": {"training_images": TRAINING_IMAGES, "columns": COLUMNS},
            "folders": {
                outcome["loss"]: outcome["folder"]
                for outcome in outcomes
                if outcome["seed"] == seeds[0]
            },
        }
        run.save_text("comparison.json", json.dumps(content, indent=1))
        run.save_figure("losses", curves_figure(outcomes))
        means = {key: float(np.mean(sample)) for key, sample in series.items()}
        run.log_metrics(means | floor_values)
    return run.metrics


if __name__ == "__main__":
    main()
