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
from functools import lru_cache
from typing import Literal

import numpy as np
from tqdm import tqdm

import labkit
from labkit import comparison
from labkit.datasets import Part
from labkit.evidence import curves_figure, values
from labkit.results import in_words
from tp4_unet_conv3d import conv3d_cost
from tp4_unet_conv3d.medmnist3d import load_medmnist3d
from tp4_unet_conv3d.volumes import Volumes, helices, mirrored_pairs, slices_figure

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp4_unet_conv3d.conv3d_models")

EXPERIMENT, PARENT = "3D_Volumetric_Analysis", "Conv3D_Baseline"
"""The hand-out's names of the experiment and of the run."""
NETWORKS = ("conv3d", "slices", "middle", "channels", "conv2plus1d")
BATCH_SIZE = 16
COLUMNS = {
    "train_accuracy": "training %",
    "validation_accuracy": "validation %",
    "test_accuracy": "test %",
    "test_auc": "test AUC",
    "train_seconds": "seconds",
}
PANELS = {"loss": "training loss (nats, running mean)", "val_accuracy": "validation accuracy"}


@dataclass(frozen=True)
class Config(comparison.Settings):
    """Settings of the comparison."""

    task: Literal["helix", "organ", "nodule"] = "helix"
    """Simulated helices, or one of MedMNIST3D's sets."""
    epochs: int = 8
    """Passes over the training volumes, 1 or more."""
    filters_start: int = 16
    """Filters of the first convolution, 1 or more; the second has twice as many."""
    data: labkit.DataChoice = "auto"
    """For organ and nodule. auto: real or, without it, a sample; real: real or an error."""
    file: str = ""
    """A MedMNIST3D file to read; if not given, the one below LABKIT_DATA."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, epochs=1, filters_start=1)
        for flag, given in (("--file", self.file), ("--data real", self.data == "real")):
            if given and self.task == "helix":
                raise ValueError(f"{flag} is for --task organ and nodule: helices are simulated")

    def trials(self) -> list[Trial]:
        """Every network with every seed."""
        shared = ("task", "epochs", "filters_start", "data", "file", "smoke", "resume")
        settings = {name: getattr(self, name) for name in shared}
        return [
            Trial(configuration=network, seed=seed, **settings)
            for network in (NETWORKS[:2] if self.smoke else NETWORKS)
            for seed in self.all_seeds
        ]


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One training of the network `configuration`."""

    task: str
    epochs: int
    filters_start: int
    data: labkit.DataChoice
    file: str

    @property
    def run_name(self) -> str:
        """Such as `conv3d-adam-crossentropy-s0`."""
        return f"{self.configuration}-adam-crossentropy-s{self.seed}"


# --- Data ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def load(choice: labkit.DataChoice, smoke: bool, task: str = "helix", file: str = "") -> Volumes:
    """The volumes of `task`, a few of them for smoke runs."""
    if task == "helix":
        return helices(32, 16, 32) if smoke else helices()
    found = load_medmnist3d(task, choice, file)
    if not smoke:
        return found
    parts = {name: getattr(found, name) for name in ("train", "validation", "test")}
    return replace(found, **{name: Part(p.x[:64], p.y[:64]) for name, p in parts.items()})


def to_input(volumes: np.ndarray) -> np.ndarray:
    """Grey values around 0: (n, d, h, w) uint8 to (n, d, h, w, 1) float32 from -1 to 3."""
    return (volumes[..., None].astype(np.float32) - 64) / 64


def turned(
    volumes: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each volume as one of the eight turns that keep the depth axis, as the model's input.

    Quarter turns around it, and half a turn that swaps its ends. None is a mirror image: that
    would change the label of a helix and make a left kidney a right one.
    """
    result = np.empty_like(volumes)
    for index, volume in enumerate(volumes):
        seen = np.rot90(volume, rng.integers(4), axes=(1, 2))
        result[index] = seen[::-1, ::-1] if rng.integers(2) else seen
    return to_input(result), y


def targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels as the loss takes them: (n, 1) float32 for two classes, (n, classes) for more."""
    if classes == 2:
        return labels[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]


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
    linear.fit(pooled(data.train.x), data.train.y)
    majority = np.bincount(data.train.y).argmax()
    return {
        "floor_majority": float(np.mean(data.test.y == majority)),
        "floor_logistic_regression": linear.score(pooled(data.test.x), data.test.y),
    }


# --- Training ------------------------------------------------------------------------------------


def study(trial: Trial, data: Volumes, run: labkit.Run) -> dict[str, float]:
    """Train a network with Adam at its defaults; test the weights of the best validation epoch."""
    labkit.prepare(trial.seed)
    classes = len(data.classes)
    build = models.BUILDERS[trial.configuration]
    model = build(data.train.x.shape[1:], trial.filters_start, classes)
    loss = "binary_crossentropy" if classes == 2 else "categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    y = targets(data.train.y, classes)
    model.fit(
        batches.Batches(data.train.x, y, BATCH_SIZE, trial.seed, run.first_epoch, turned),
        validation_data=(to_input(data.validation.x), targets(data.validation.y, classes)),
        epochs=2 if trial.smoke else trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.keeps_best("val_loss", "min"), run.checkpoints(model)],
        verbose=0,
    )
    model.load_weights(run.best_file)
    model.save(run.folder / "model.keras")
    metrics = {"train_seconds": run.seconds, "parameters": model.count_params()}
    metrics["best_epoch"] = int(np.argmin(run.history["val_loss"])) + 1
    for name, part in {
        "train": Part(data.train.x[:1000], data.train.y[:1000]),
        "validation": data.validation,
        "test": data.test.open(),
    }.items():
        metrics |= {f"{name}_{key}": value for key, value in score(model, part).items()}
    return metrics


def score(model: keras.Model, part: Part) -> dict[str, float]:
    """Cross-entropy in nats, accuracy and area under the ROC curve in 0..1.

    With more than two classes the area is the mean over each class against the others, as in
    MedMNIST's own evaluation.
    """
    from sklearn.metrics import roc_auc_score

    y = part.y
    probabilities = model.predict(to_input(part.x), batch_size=50, verbose=0).astype(float)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    areas = [roc_auc_score(y == label, probabilities[:, label]) for label in np.unique(y)]
    given = np.take_along_axis(probabilities, y[:, None].astype(int), axis=1)
    return {
        "loss": float(-np.log(np.maximum(given, 1e-7)).mean()),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
        "auc": float(np.mean(areas)),
    }


# --- Main ----------------------------------------------------------------------------------------


def examples(task: str, data: Volumes) -> dict[str, np.ndarray]:
    """Volumes to show, by their titles: helices and their mirror images, or one of each class."""
    if task == "helix":
        return mirrored_pairs(data.classes)
    shown = enumerate(data.classes[:4])
    return {name: data.train.x[data.train.y == label][0] for label, name in shown}


def costs(run: labkit.Run, smoke: bool) -> list[dict]:
    """What a training step costs at each setting, drawn in `cost.png`; one small one for smoke."""
    if smoke:
        small = conv3d_cost.Setting(filters=2, depth=8)
        found = asdict(small) | conv3d_cost.measure(small, repeats=1)
        found.pop("peak_mb", None)  # this process has had a higher one before
        return [found]
    settings = tqdm(conv3d_cost.SETTINGS, "memory and time", unit="setting")
    rows = [asdict(setting) | conv3d_cost.measure_apart(setting) for setting in settings]
    run.save_figure("cost", conv3d_cost.cost_figure(rows))
    return rows


def track_as_handed_out(architecture: dict) -> None:
    """Name the active run as the hand-out does, log its optimizer and the network's JSON."""
    mlflow.set_tag("mlflow.runName", PARENT)
    mlflow.log_param("optimizer", "adam")
    mlflow.log_dict({"model_config": architecture}, "artifacts/model_architecture.json")


def conclusions(outcomes: list[comparison.Outcome]) -> list[str]:
    """What share of the test volumes each network gets right."""
    return [
        f"{network}: {in_words([100 * each for each in sample], 1, ' %')} of the test volumes."
        for network, sample in values(outcomes, "test_accuracy").items()
    ]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all networks, measure what they cost, conclude; the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke, config.task, config.file)
    name = "conv3d-adam-crossentropy"
    with labkit.start_run(__file__, config, data.source, name, experiment=EXPERIMENT) as run:
        if run.is_finished:
            return comparison.show_again(run)
        labkit.prepare(config.seed)
        shape, classes = data.train.x.shape[1:], len(data.classes)
        handed_out = models.build_conv3d(shape, config.filters_start, classes)
        run.track(track_as_handed_out, json.loads(handed_out.to_json()))
        outcomes = comparison.run_trials(
            run, __file__, study,
            lambda trial: load(trial.data, trial.smoke, trial.task, trial.file),
            config.trials(), config.ray_address, "networks", EXPERIMENT,
        )  # fmt: skip
        run.save_figure("examples", slices_figure(examples(config.task, data)))
        curves = curves_figure(outcomes, PANELS)
        curves.axes[0].set_yscale("log")
        run.save_figure("curves", curves)
        final = np.mean(values(outcomes, "validation_loss")["conv3d"])
        run.log_metrics({"final_val_loss": final})  # the hand-out's name
        rows = costs(run, config.smoke)
        return comparison.conclude(
            run,
            f"Volumes against slices: {config.task}",
            outcomes,
            COLUMNS,
            conclusions(outcomes),
            floors(data),
            {"cost": rows},
            f"## What a training step costs\n\n{conv3d_cost.cost_table(rows)}",
        )


if __name__ == "__main__":
    main()
