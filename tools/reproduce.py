"""Run a lab's scripts over several seeds and write the reference figures, `results/*.json`.

    python tools/reproduce.py --lab tp1                      # everything that tp1's README quotes
    python tools/reproduce.py --lab tp1 --only dense cnn     # some of it
    python tools/reproduce.py --lab tp1 --list               # what there is

Each run goes through the script's own `main` on real data. Runs that are finished or were
interrupted are resumed, not repeated, so this command can be stopped and started again. Figures of
a checkout with uncommitted changes outside `results/` are refused: nobody could reproduce them.
"""

import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.results import summary


@dataclass(frozen=True)
class Experiment:
    """One row of a README's table: a script with fixed arguments, over some seeds."""

    script: str
    variant: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    then: str | None = None
    """Script that examines each finished run; its metrics join those of the training."""
    data: str = "real"
    """What the script is told of data: some pictures are generated, by design."""
    comparison: bool = False
    """The script runs all seeds itself, of several configurations."""

    @property
    def name(self) -> str:
        """What `--only` and the progress bar call it."""
        return self.variant or self.script.rpartition(".")[2]

    @property
    def file(self) -> str:
        """Name of its results file, without the ending."""
        return f"{self.script}.{self.variant}".removesuffix(".")


TRAIN, EVALUATE = "tp1_mnist_api.train_model", "tp1_mnist_api.evaluate"
CLASSIFY, EXAMINE = "tp3_cnn_resnet.cnn_classification", "tp3_cnn_resnet.evaluate"
STYLE = "tp3_cnn_resnet.style_transfer"
SEGMENT, INSPECT = "tp4_unet_conv3d.unet_segmentation", "tp4_unet_conv3d.evaluate"
VOLUMES = "tp4_unet_conv3d.volume_segmentation"
FORECAST = "tp5_seq2seq_attention.seq2seq_attention"
SHIPPED = str(machine.ROOT / "tp1_mnist_api" / "model" / "mnist.tflite")
EXPERIMENTS = {
    "tp1": [
        Experiment(TRAIN, "dense", ("--model", "dense"), (0, 1, 2, 3, 4), EVALUATE),
        Experiment(
            TRAIN,
            "dense_stratified",
            ("--model", "dense", "--split", "stratified"),
            (0, 1, 2, 3, 4),
        ),
        Experiment(TRAIN, "dense_strong", ("--model", "dense-strong"), (0, 1, 2), EVALUATE),
        Experiment(TRAIN, "cnn", ("--model", "cnn"), (0, 1, 2), EVALUATE),
        Experiment(TRAIN, "compact", ("--model", "compact"), (0, 1, 2), EVALUATE),
        Experiment("tp1_mnist_api.evaluate_pictures", "", ("--model", SHIPPED), (0, 1, 2)),
    ],
    "tp2": [
        Experiment(f"tp2_improvement.{script}", "", arguments, tuple(range(seeds)), comparison=True)
        for script, arguments, seeds in (
            ("tp2_ex1_bias_variance", (), 4),
            ("tp2_ex2_regularization", ("--epochs", "8"), 4),
            ("tp2_ex3_optimizers", (), 5),
            ("tp2_ex4_batchnorm", (), 4),
        )
    ],
    "tp3": [
        Experiment(CLASSIFY, "cnn", ("--model", "cnn"), (0, 1, 2), EXAMINE),
        Experiment(CLASSIFY, "resnet", ("--model", "resnet"), (0, 1, 2)),
        Experiment(
            CLASSIFY,
            "resnet_falling",
            ("--model", "resnet", "--rate", "falling"),
            (0, 1, 2),
            EXAMINE,
        ),
        Experiment(CLASSIFY, "fast_resnet", (), (0, 1, 2), EXAMINE),
        Experiment(CLASSIFY, "fast_resnet_long", ("--budget", "long"), (0,), EXAMINE),
        Experiment(CLASSIFY, "fast_resnet_record", ("--budget", "record"), (0,), EXAMINE),
        Experiment(CLASSIFY, "resnet_plain", ("--model", "resnet-plain"), (0, 1, 2)),
        Experiment(STYLE, "vgg19_distilled", (), (0, 1, 2)),
        Experiment(STYLE, "cifar10_net", (), (0, 1, 2), data="sample"),
        Experiment("tp3_cnn_resnet.segmentation_demo", "", (), (0, 1, 2), data="auto"),
        Experiment("tp3_cnn_resnet.box_demo", "", (), (0, 1, 2), data="auto"),
    ],
    "tp4": [
        Experiment(SEGMENT, "cells", (), (0, 1, 2), INSPECT, data="sample"),
        Experiment(SEGMENT, "cells_handout", ("--width", "32"), (0,), INSPECT, data="sample"),
        Experiment(SEGMENT, "mri", (), (0, 1, 2), INSPECT),
        Experiment(
            "tp4_unet_conv3d.loss_comparison", "", (), (0, 1, 2), data="sample", comparison=True
        ),
        Experiment(
            "tp4_unet_conv3d.conv3d_analysis", "", (), (0, 1, 2), data="auto", comparison=True
        ),
        Experiment(VOLUMES, "tubes", (), (0, 1, 2), data="sample", comparison=True),
        Experiment(VOLUMES, "mri_volumes", (), (0, 1, 2), comparison=True),
    ],
    "tp5": [
        Experiment(
            "tp5_seq2seq_attention.attention_exercise",
            "",
            ("--task", "all"),
            (0, 1, 2),
            data="auto",
            comparison=True,
        ),
        Experiment(FORECAST, "synthetic", (), (0, 1, 2), data="auto"),
        Experiment(FORECAST, "monthly", ("--series", "monthly"), (0, 1, 2), data="auto"),
        *(
            Experiment(
                FORECAST,
                f"etth1_{horizon}",
                ("--series", "etth1", "--horizon", str(horizon)),
                (0, 1, 2),
            )
            for horizon in (96, 192, 336, 720)
        ),
        Experiment(FORECAST, "etth1_ot", ("--series", "etth1-ot"), (0, 1, 2)),
    ],
}


@dataclass(frozen=True)
class Config:
    """What to reproduce."""

    lab: str
    """The lab's short name, such as tp1."""
    only: tuple[str, ...] = ()
    """Variants to run; all of the lab's if not given."""
    list: bool = False
    """Print the variants and stop."""


def collect(experiment: Experiment, runs: list[dict[str, float]], state: dict) -> dict:
    """The content of a results file from the final metrics of all seeds and one run's state."""
    names = dict.fromkeys(name for run in runs for name in run)  # not every seed has them all
    series = {name: [run[name] for run in runs if name in run] for name in names}
    trained = series.get("train_seconds")
    return content(experiment, series, state) | {
        "train_seconds": summary(trained) if trained else {}
    }


def content(experiment: Experiment, series: dict[str, list[float]], state: dict) -> dict:
    """What all results files have; `series` holds the values of each metric, one a seed."""
    floors = {name: values[0] for name, values in series.items() if name.startswith("floor_")}
    return {
        "script": experiment.script,
        "argv": [argument.removeprefix(f"{machine.ROOT}/") for argument in experiment.arguments],
        "data_source": state["data_source"],
        "seeds": list(experiment.seeds),
        "metrics": {
            name: summary(values)
            for name, values in series.items()
            if name not in floors and not name.endswith("_seconds")
        },
        "floors": {name.removeprefix("floor_"): value for name, value in floors.items()},
        "machine": {**state["machine"], "precision": state["config"].get("precision", "float32")},
        "versions": state["versions"],
        "commit": state["commit"],
    }


def reproduce_comparison(experiment: Experiment) -> None:
    """Run a comparison, which has its seeds inside, and write its file."""
    first, count = experiment.seeds[0], len(experiment.seeds)
    arguments = [*experiment.arguments, "--seed", str(first), "--seeds", str(count)]
    importlib.import_module(experiment.script).main(
        [*arguments, "--data", experiment.data, "--resume"]
    )
    run = labkit.find_run(experiment.script)
    compared = json.loads((run.folder / "comparison.json").read_text())
    series = compared["series"] | {name: [value] for name, value in compared["floors"].items()}
    seconds = {
        name.removesuffix("/train_seconds"): summary(values)
        for name, values in series.items()
        if name.endswith("/train_seconds")
    }
    results.write(
        experiment.file,
        content(experiment, series, run.state)
        | {"train_seconds": seconds, "seconds": run.state["seconds"]}
        | {name: compared[name] for name in ("conclusions", "details")},
    )


def reproduce(experiment: Experiment, progress: Iterable[int]) -> None:
    """Run all seeds of `experiment` and write its file."""
    runs = []
    for seed in progress:
        arguments = [*experiment.arguments, "--seed", str(seed), "--data", experiment.data]
        metrics = importlib.import_module(experiment.script).main([*arguments, "--resume"])
        state = labkit.find_run(experiment.script).state
        if experiment.then:
            examine = importlib.import_module(experiment.then).main
            metrics = metrics | examine(["--run", state["run_id"], "--data", experiment.data])
        runs.append(metrics)
    results.write(experiment.file, collect(experiment, runs, state))


def main(argv: list[str] | None = None) -> None:
    """Run what the arguments name."""
    config = labkit.parse(Config, argv)
    if config.lab not in EXPERIMENTS:
        fail(f"--lab must be one of {', '.join(EXPERIMENTS)}, got {config.lab}")
    experiments = {experiment.name: experiment for experiment in EXPERIMENTS[config.lab]}
    if unknown := set(config.only) - set(experiments):
        fail(f"--only must be among {', '.join(experiments)}, got {', '.join(sorted(unknown))}")
    chosen = [experiments[variant] for variant in config.only or experiments]
    if config.list:
        for experiment in chosen:
            print(experiment.name, *experiment.arguments, "seeds", *experiment.seeds)
        return
    if machine.commit().endswith("-dirty"):
        fail("uncommitted changes outside results/: commit them, then reproduce")
    for experiment in chosen:
        if experiment.comparison:
            reproduce_comparison(experiment)
        else:
            reproduce(experiment, tqdm(experiment.seeds, desc=experiment.name, unit="seed"))


if __name__ == "__main__":
    main()
