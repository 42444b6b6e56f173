"""Does a U-Net of volumes learn sooner, and find more, than one of single slices?

    python tp4_unet_conv3d/volume_segmentation.py                  # tubes among rods, simulated
    python tp4_unet_conv3d/volume_segmentation.py --data real      # whole MRI volumes
    python tp4_unet_conv3d/volume_segmentation.py --smoke          # everything once, in seconds
    python tp4_unet_conv3d/volume_segmentation.py --resume         # go on after an interruption

Two U-Nets of the same widths see the same volumes in the same order: `slices`, whose kernels are
1x3x3, and `volumes`, whose kernels are 3x3x3. One pass over the volumes costs the second one more,
so both clocks are kept: epochs, and seconds. Epoch and threshold are chosen on validation for each
training, and each opens the test volumes once. Both are scored volume by volume.

README.md has the figures and the time on two cores.

References: Ronneberger et al. (MICCAI 2015), Çiçek et al. (MICCAI 2016) for the 3-D U-Net.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import numpy as np

import labkit
from labkit import figures
from labkit.results import in_words
from tp4_unet_conv3d import mri
from tp4_unet_conv3d.models import build_volume_unet, forward_flops
from tp4_unet_conv3d.unet_segmentation import (
    PEAK_RATE,
    Part,
    compile_model,
    convergence,
    floors,
    overlay_figure,
)
from tp4_unet_conv3d.volumes import tubes

keras = labkit.lazy("keras")
measures = labkit.lazy("tp4_unet_conv3d.metrics")
augmentation = labkit.lazy("tp4_unet_conv3d.augmentation")

NETWORKS = {"slices": 1, "volumes": 3}
"""Depth of the kernels."""
LOSS = "bce+dice"
COUNTS = {"train": 300, "validation": 60, "test": 150}
SMOKE_COUNTS = {"train": 8, "validation": 4, "test": 4}


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    data: labkit.DataChoice = "auto"
    """real: whole FLAIR volumes below LABKIT_DATA, or an error; auto and sample: simulated."""
    width: int = 8
    """Filters at full resolution, 1 or more."""
    epochs: int | None = None
    """Passes over the training volumes, 1 or more; if not given 12, on MRI 40."""
    seeds: int = 3
    """Trainings of each network, 1 or more."""
    seed: int = 0
    """The first seed, of weights, order and mirroring; never of the volumes. The others follow."""
    smoke: bool = False
    """One seed and epoch of narrow networks on few volumes: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, width=1, epochs=1, seeds=1, seed=0)


@dataclass(frozen=True, kw_only=True)
class Trial(Config):
    """One training of one network."""

    network: str

    @property
    def passes(self) -> int:
        """Epochs of this training."""
        return 1 if self.smoke else self.epochs or (40 if self.data == "real" else 12)

    @property
    def batch_size(self) -> int:
        """Volumes in a batch: MRI volumes are nine times as large."""
        return 2 if self.data == "real" else 4


@dataclass(frozen=True)
class Volumes:
    """Volumes of one part and their masks."""

    inputs: np.ndarray
    """(n, d, h, w, 1) float32."""
    masks: np.ndarray
    """(n, d, h, w) bool."""

    @property
    def targets(self) -> np.ndarray:
        """(n, d, h, w, 1) float32."""
        return self.masks[..., None].astype(np.float32)

    def slices(self) -> Part:
        """The same as slices (n d, h, w), which are scored together by volume."""
        count, depth, height, width = self.masks.shape
        return Part(
            self.inputs.reshape(-1, height, width, 1),
            self.masks.reshape(-1, height, width).astype(np.uint8),
            np.repeat(np.arange(count), depth),
        )


@lru_cache(maxsize=1)
def load(data: labkit.DataChoice, smoke: bool) -> tuple[dict[str, Volumes], str]:
    """The parts train, validation and test, and the data source."""
    if data == "real":
        parts, source = mri.load_volumes(2 if smoke else None)
        return {part: Volumes(*arrays) for part, arrays in parts.items()}, source
    counts = SMOKE_COUNTS if smoke else COUNTS
    drawn = {part: tubes(count, stream) for stream, (part, count) in enumerate(counts.items())}
    return {
        part: Volumes(volumes[..., None] / np.float32(128) - 1, masks)
        for part, (volumes, masks) in drawn.items()
    }, "simulated:tubes"


# --- Training ------------------------------------------------------------------------------------


def build(trial: Trial, shape: tuple[int, int, int]) -> keras.Model:
    """The trial's network, with fresh weights of its seed."""
    labkit.prepare(trial.seed)
    width = min(2, trial.width) if trial.smoke else trial.width
    return build_volume_unet(shape, width, NETWORKS[trial.network])


def train(
    model: keras.Model, trial: Trial, parts: dict[str, Volumes], run: labkit.Run
) -> keras.Model:
    """Fit `model`; return it with the weights of the best validation Dice."""
    training, validation = parts["train"], parts["validation"]
    sequence = augmentation.SegmentationBatches(
        training.inputs, training.targets, trial.batch_size, trial.seed, run.first_epoch,
        augment=augmentation.mirror,
    )  # fmt: skip
    steps = trial.passes * len(sequence)
    rate = keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 30, steps - steps // 10, warmup_target=PEAK_RATE, warmup_steps=steps // 10
    )
    compile_model(model, LOSS, keras.optimizers.Adam(rate))
    model.fit(
        sequence,
        validation_data=(validation.inputs, validation.targets),
        validation_batch_size=trial.batch_size,
        epochs=trial.passes,
        initial_epoch=run.first_epoch,
        shuffle=False,  # SegmentationBatches shuffles, in an order that a resumed run repeats
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: logs.update(seconds=run.seconds)
            ),
            run.keeps_best("val_dice", "max"),
            run.checkpoints(model),
        ],
        verbose=0,
    )
    model.load_weights(run.best_file)
    return model


def probabilities_of(model: keras.Model, part: Volumes, batch_size: int) -> np.ndarray:
    """(n d, h, w) probabilities of the target."""
    found = model.predict(part.inputs, batch_size=batch_size, verbose=0)
    return found.reshape(-1, *found.shape[2:4])


def score(probabilities: np.ndarray, slices: Part, threshold: float) -> dict[str, float]:
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


def run_trial(parent: str, trial: Trial) -> dict:
    """Train once as a child of the MLflow run `parent`, or find it finished; what was measured."""
    parts, source = load(trial.data, trial.smoke)
    name = f"unet_{trial.network}{trial.width}-adam-{LOSS}-s{trial.seed}"
    with labkit.start_run(__file__, trial, source, name, parent, "trial") as run:
        if not run.is_finished:
            model = build(trial, parts["train"].masks.shape[1:])
            train(model, trial, parts, run)
            metrics = {"train_seconds": run.history["seconds"][-1], **convergence(run.history)}
            metrics["parameters"] = model.count_params()
            metrics["gigaflop_per_volume"] = forward_flops(model) / 1e9
            validation, test = parts["validation"].slices(), parts["test"].slices()
            probabilities = probabilities_of(model, parts["validation"], trial.batch_size)
            metrics["threshold"] = measures.choose_threshold(
                probabilities, validation.masks, validation.groups
            )
            metrics["validation_dice"] = max(run.history["val_dice"])
            probabilities = probabilities_of(model, parts["test"], trial.batch_size)
            run.log_metrics(metrics | score(probabilities, test, metrics["threshold"]))
            np.save(run.folder / "answers.npy", np.packbits(probabilities > metrics["threshold"]))
            model.save(run.folder / "model.keras")
    packed = np.load(run.folder / "answers.npy")
    masks = parts["test"].slices().masks
    return {
        "network": trial.network,
        "metrics": run.metrics,
        "history": run.history,
        "predictions": np.unpackbits(packed, count=masks.size).reshape(masks.shape).astype(bool),
    }


# --- Conclusion ----------------------------------------------------------------------------------


def of_network(outcomes: list[dict], network: str, metric: str) -> list[float]:
    """`metric` of `network` over the seeds that have it: a target may never be reached."""
    return [
        outcome["metrics"][metric]
        for outcome in outcomes
        if outcome["network"] == network and metric in outcome["metrics"]
    ]


def conclusions(outcomes: list[dict]) -> list[str]:
    """What the figures allow to say, computed from them."""
    dice = {network: of_network(outcomes, network, "dice") for network in NETWORKS}
    apart = min(dice["volumes"]) > max(dice["slices"])
    found = [
        f"Test Dice by volume: {in_words(dice['volumes'])} with 3x3x3 kernels, "
        f"{in_words(dice['slices'])} slice by slice: "
        + ("every seed of the first is above every seed of the second."
           if apart else "the seeds overlap.")
    ]  # fmt: skip
    for network in NETWORKS:
        epochs = of_network(outcomes, network, "epochs_to_dice_0.8")
        runs = len(dice[network])
        told = f"{network}: {len(epochs)} of {runs} trainings reach validation Dice 0.8"
        if epochs:
            seconds = of_network(outcomes, network, "seconds_to_dice_0.8")
            told += f", after {np.mean(epochs):.1f} epochs and {np.mean(seconds):.0f} s in the mean"
        found.append(told + ".")
    seconds = {network: of_network(outcomes, network, "train_seconds") for network in NETWORKS}
    ratio = np.divide(seconds["volumes"], seconds["slices"])
    found.append(f"An epoch of volumes takes {in_words(list(ratio), 1)} times as long.")
    return found


def curves_figure(outcomes: list[dict]) -> figures.Figure:
    """Validation Dice of every training, against epochs and against seconds."""
    figure, axes = figures.subplots(1, 2, size=(11, 4.2))
    for place, network in enumerate(NETWORKS):
        runs = [outcome["history"] for outcome in outcomes if outcome["network"] == network]
        for number, history in enumerate(runs):
            label = None if number else network
            epochs = np.arange(1, len(history["val_dice"]) + 1)
            for axis, x in zip(axes, (epochs, history["seconds"]), strict=True):
                axis.plot(x, history["val_dice"], marker=".", color=f"C{place}", alpha=0.8,
                          label=label)  # fmt: skip
    for axis, name in zip(axes, ("epoch", "seconds, validation included"), strict=True):
        axis.axhline(0.8, color="0.6", linestyle=":", linewidth=1)
        axis.set(xlabel=name, ylim=(0, 1), title="Validation Dice (by volume, at 0.5)")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(loc="lower right")
    return figure


def predictions_figure(outcomes: list[dict], test: Part, depth: int) -> figures.Figure:
    """Slices of the first two test volumes: truth, and both networks' predictions of one seed."""
    depths = np.linspace(0.2, 0.8, 5) * depth
    chosen = np.concatenate([depths.astype(int), depth + depths.astype(int)])
    predictions = {"truth": test.masks}
    for outcome in outcomes:
        predictions.setdefault(outcome["network"], outcome["predictions"])
    titles = [f"volume {index // depth}\nslice {index % depth}" for index in chosen]
    return overlay_figure(test, predictions, chosen, titles)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all, compare, track; return the mean of every metric of each network."""
    config = labkit.parse(Config, argv)
    labkit.prepare(config.seed)
    parts, source = load(config.data, config.smoke)
    with labkit.start_run(
        __file__, config, source, f"unet_volumes{config.width}-adam-{LOSS}"
    ) as run:
        if run.is_finished:
            print(f"\n{(run.folder / 'report.md').read_text()}")
            return run.metrics
        seeds = range(config.seed, config.seed + (1 if config.smoke else config.seeds))
        trials = [
            Trial(**asdict(config) | {"network": network, "seed": seed, "seeds": 1})
            for seed in seeds
            for network in NETWORKS
        ]
        outcomes = labkit.fan_out(partial(run_trial, run.mlflow_id), trials, label="networks")
        slices = {part: volumes.slices() for part, volumes in parts.items()}
        floor_values, _ = floors(slices)
        names = dict.fromkeys(key for outcome in outcomes for key in outcome["metrics"])
        series = {
            f"{network}/{metric}": sample
            for metric in names
            for network in NETWORKS
            if (sample := of_network(outcomes, network, metric))
        }
        run.save_figure("curves", curves_figure(outcomes))
        run.save_figure(
            "answers", predictions_figure(outcomes, slices["test"], parts["test"].masks.shape[1])
        )
        found = conclusions(outcomes)
        text = (
            f"# A U-Net of slices against one of volumes\n\nData: {source}. Seeds {list(seeds)}, "
            f"{trials[0].passes} epochs.\n\n"
            + "".join(
                f"- floor, {key.removeprefix('floor_').replace('_', ' ')}: Dice {value:.3f}\n"
                for key, value in floor_values.items()
            )
            + "".join(f"- {sentence}\n" for sentence in found)
        )
        print(f"\n{text}")
        run.save_text("report.md", text)
        content = {"seeds": list(seeds), "series": series, "floors": floor_values}
        content |= {"conclusions": found, "details": {"epochs": trials[0].passes}}
        run.save_text("comparison.json", json.dumps(content, indent=1))
        run.log_metrics(
            {key: float(np.mean(values)) for key, values in series.items()} | floor_values
        )
    return run.metrics


if __name__ == "__main__":
    main()
