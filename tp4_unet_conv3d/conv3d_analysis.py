"""What does a Conv3D see that a model of single slices can't, and what does it cost?

    python tp4_unet_conv3d/conv3d_analysis.py                  # left- or right-handed helix
    python tp4_unet_conv3d/conv3d_analysis.py --task organ     # OrganMNIST3D, if you have the file
    python tp4_unet_conv3d/conv3d_analysis.py --smoke          # everything once, in seconds
    python tp4_unet_conv3d/conv3d_analysis.py --resume         # go on after an interruption

1. The hand-out's Conv3D, its (2+1)D variant and three 2-D networks of the same two stages learn
   from the same volumes, over several seeds: `volumes.py` proves why single slices can't do it.
2. Memory and time of a training step against kernel size, filters and depth, measured.

README.md has the figures and the time on two cores.

References: Tran et al. (CVPR 2018) for (2+1)D; Yang et al. (Sci. Data 2023) for MedMNIST3D.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Literal

import numpy as np

import labkit
from tp4_unet_conv3d.conv3d_cost import Setting, cost_figure, every_setting, measure, measure_all
from tp4_unet_conv3d.conv3d_report import curves_figure, examples_figure, percent, report
from tp4_unet_conv3d.medmnist3d import load_medmnist3d
from tp4_unet_conv3d.volumes import Volumes, draw_scene, helices, render

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp4_unet_conv3d.conv3d_models")

EXPERIMENT, PARENT = "3D_Volumetric_Analysis", "Conv3D_Baseline"
"""The hand-out's names of the experiment and of the run."""
NETWORKS = ("conv3d", "slices", "middle", "channels", "conv2plus1d")
BATCH_SIZE = 16


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    task: Literal["helix", "organ", "nodule"] = "helix"
    """Simulated helices, or one of MedMNIST3D's sets."""
    epochs: int = 8
    """Passes over the training volumes, 1 or more."""
    seeds: int = 3
    """Trainings of each network, 1 or more."""
    seed: int = 0
    """The first seed, of weights, order and turns; never of the volumes. The others follow it."""
    filters_start: int = 16
    """Filters of the first convolution, 1 or more; the second has twice as many."""
    data: labkit.DataChoice = "auto"
    """For organ and nodule. auto: real or, without it, a sample; real: real or an error."""
    file: str = ""
    """A MedMNIST3D file to read; if not given, the one below LABKIT_DATA."""
    smoke: bool = False
    """One seed and epoch of two networks on a few volumes: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seeds=1, seed=0, filters_start=1)
        if self.file and self.task == "helix":
            raise ValueError("--file is for --task organ and nodule: helices are simulated")


@dataclass(frozen=True, kw_only=True)
class Trial(Config):
    """One training of one network."""

    network: str


# --- Data ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def load(task: str, data: labkit.DataChoice, file: str, smoke: bool) -> Volumes:
    """The volumes of `task`, a few of them for smoke runs."""
    if task == "helix":
        return helices(32, 16, 32) if smoke else helices()
    found = load_medmnist3d(task, data, file)
    if not smoke:
        return found
    arrays = {name: array[:64] for name, array in vars(found).items() if name[:2] in ("x_", "y_")}
    return replace(found, **arrays)


def to_input(volumes: np.ndarray) -> np.ndarray:
    """Grey values around 0: (n, d, h, w) uint8 to (n, d, h, w, 1) float32 from -1 to 3."""
    return (volumes[..., None].astype(np.float32) - 64) / 64


def turned(volumes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each volume as one of the eight turns that keep the depth axis, as the model's input.

    Quarter turns around it, and half a turn that swaps its ends. None is a mirror image: that
    would change the label of a helix and make a left kidney a right one.
    """
    result = np.empty_like(volumes)
    for index, volume in enumerate(volumes):
        seen = np.rot90(volume, rng.integers(4), axes=(1, 2))
        result[index] = seen[::-1, ::-1] if rng.integers(2) else seen
    return to_input(result)


def targets(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Labels as the loss takes them: (n, 1) float32 for two classes, (n, classes) for more."""
    if len(classes) == 2:
        return labels[:, None].astype(np.float32)
    return np.eye(len(classes), dtype=np.float32)[labels]


def floors(data: Volumes) -> dict[str, float]:
    """Test accuracies that a network must beat: the most frequent class, a linear model of voxels.

    The linear model is logistic regression on the means of blocks of 2x2x2 voxels.
    """
    from sklearn.linear_model import LogisticRegression

    def pooled(volumes: np.ndarray) -> np.ndarray:
        n, depth, height, width = volumes.shape
        blocks = volumes.reshape(n, depth // 2, 2, height // 2, 2, width // 2, 2)
        return blocks.mean(axis=(2, 4, 6), dtype=np.float32).reshape(n, -1) / 64 - 1

    linear = LogisticRegression(C=1e-3, max_iter=1000, tol=1e-3)
    linear.fit(pooled(data.x_train), data.y_train)
    majority = np.bincount(data.y_train).argmax()
    return {
        "floor_majority": float(np.mean(data.y_test == majority)),
        "floor_logistic_regression": linear.score(pooled(data.x_test), data.y_test),
    }


# --- Training ------------------------------------------------------------------------------------


def train(trial: Trial, data: Volumes, run: labkit.Run) -> keras.Model:
    """Train the trial's network with Adam at its defaults; best validation epoch's weights."""
    labkit.prepare(trial.seed)
    binary = len(data.classes) == 2
    build = models.BUILDERS[trial.network]
    model = build(data.x_train.shape[1:], trial.filters_start, len(data.classes))
    loss = "binary_crossentropy" if binary else "categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    y = targets(data.y_train, data.classes)
    model.fit(
        batches.Batches(data.x_train, y, BATCH_SIZE, trial.seed, run.first_epoch, turned),
        validation_data=(to_input(data.x_validation), targets(data.y_validation, data.classes)),
        epochs=1 if trial.smoke else trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.keeps_best("val_loss", "min"), run.checkpoints(model)],
        verbose=0,
    )
    model.load_weights(run.best_file)
    return model


def score(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Cross-entropy in nats, accuracy and area under the ROC curve in 0..1.

    `x` is (n, d, h, w) uint8, `y` (n,) labels. With more than two classes the area is the mean over
    each class against the others, as in MedMNIST's own evaluation.
    """
    from sklearn.metrics import roc_auc_score

    probabilities = model.predict(to_input(x), batch_size=50, verbose=0).astype(float)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    areas = [roc_auc_score(y == label, probabilities[:, label]) for label in np.unique(y)]
    given = np.take_along_axis(probabilities, y[:, None].astype(int), axis=1)
    return {
        "loss": float(-np.log(np.maximum(given, 1e-7)).mean()),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
        "auc": float(np.mean(areas)),
    }


def run_trial(parent: str, trial: Trial) -> dict:
    """Train one network as a child run of `parent`, or find it finished; what it measured."""
    data = load(trial.task, trial.data, trial.file, trial.smoke)
    name = f"{trial.network}-adam-crossentropy-s{trial.seed}"
    with labkit.start_run(__file__, trial, data.source, name, parent, "trial", EXPERIMENT) as run:
        if not run.is_finished:
            model = train(trial, data, run)
            metrics = {"train_seconds": run.seconds, "parameters": model.count_params()}
            metrics["best_epoch"] = int(np.argmin(run.history["val_loss"])) + 1
            for part in ("train", "validation", "test"):  # the one look at the test volumes
                x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
                found = score(model, x[:1000], y[:1000]) if part == "train" else score(model, x, y)
                metrics |= {f"{part}_{key}": value for key, value in found.items()}
            run.log_metrics(metrics)
            model.save(run.folder / "model.keras")
    return {"network": trial.network, "metrics": run.metrics, "history": run.history}


# --- Main ----------------------------------------------------------------------------------------


def examples(config: Config, data: Volumes) -> dict[str, np.ndarray]:
    """Volumes to show with their titles: helices and their mirror images, or one of each class."""
    if config.task != "helix":
        shown = data.classes[:4]
        return {name: data.x_train[data.y_train == data.classes.index(name)][0] for name in shown}
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in (3, 5)]
    return {
        f"{number}{mirror}: {data.classes[each.handedness]}": render(each)
        for number, scene in zip("AB", scenes, strict=True)
        for mirror, each in (("", scene), (" mirrored", scene.mirrored()))
    }


def track_as_handed_out(parameters: dict[str, str | int], architecture: dict) -> None:
    """Name the active run as the hand-out does, log its parameters and the network's JSON."""
    mlflow.set_tag("mlflow.runName", PARENT)
    mlflow.log_params(parameters)
    mlflow.log_dict({"model_config": architecture}, "artifacts/model_architecture.json")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all networks, measure what they cost, conclude; the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.task, config.data, config.file, config.smoke)
    name = "conv3d-adam-crossentropy"
    with labkit.start_run(__file__, config, data.source, name, experiment=EXPERIMENT) as run:
        if run.is_finished:
            print(f"\n{(run.folder / 'report.md').read_text()}")
            return run.metrics
        labkit.prepare(config.seed)
        handed_out = models.build_conv3d(
            data.x_train.shape[1:], config.filters_start, len(data.classes)
        )
        run.track(track_as_handed_out, {"optimizer": "adam"}, json.loads(handed_out.to_json()))

        networks = ("conv3d", "slices") if config.smoke else NETWORKS
        seeds = range(config.seed, config.seed + (1 if config.smoke else config.seeds))
        trials = [
            Trial(**asdict(config) | {"network": network, "seed": seed, "seeds": 1})
            for network in networks
            for seed in seeds
        ]
        outcomes = labkit.fan_out(partial(run_trial, run.mlflow_id), trials, label="networks")
        series: dict[str, list[float]] = {}
        for outcome in outcomes:
            for metric, value in outcome["metrics"].items():
                series.setdefault(f"{outcome['network']}/{metric}", []).append(value)

        if config.smoke:
            small = Setting(filters=2, depth=8)
            rows = [asdict(small) | measure(small, repeats=1)]
            rows[0].pop("peak_mb", None)  # this process has had a higher one before
        else:
            rows = measure_all(every_setting())
            run.save_figure("cost", cost_figure(rows))
        run.save_figure("examples", examples_figure(examples(config, data)))
        run.save_figure("curves", curves_figure(outcomes))

        floor_values = floors(data)
        metrics = {name: float(np.mean(sample)) for name, sample in series.items()} | floor_values
        metrics["final_val_loss"] = metrics["conv3d/validation_loss"]  # the hand-out's name
        run.log_metrics(metrics)
        text = report(config.task, data.source, series, floor_values, rows)
        print(f"\n{text}")
        run.save_text("report.md", text)
        conclusions = [
            f"{network}: {percent(series[f'{network}/test_accuracy'])} of the test volumes."
            for network in networks
        ]
        content = {"seeds": list(seeds), "series": series, "floors": floor_values}
        content |= {"conclusions": conclusions, "details": {"cost": rows}}
        run.save_text("comparison.json", json.dumps(content, indent=1))
    return run.metrics


if __name__ == "__main__":
    main()
