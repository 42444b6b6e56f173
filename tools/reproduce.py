"""Run a lab's scripts over several seeds and write the reference figures, `results/*.json`.

    python tools/reproduce.py --lab tp1                      # everything that tp1's README quotes
    python tools/reproduce.py --lab tp1 --only dense cnn     # some of it
    python tools/reproduce.py --list                         # what there is

Each run goes through the script's own `main` on real data. Runs that are finished or were
interrupted are resumed, not repeated, so this command can be stopped and started again. Figures of
a checkout with uncommitted changes outside `results/` are refused: nobody could reproduce them.
The machine's speed is measured first and stored beside them: seconds differ from day to day.
Where an experiment's data aren't there the others are made all the same, and the exit code is 2.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.comparison import compared
from labkit.experiments import Experiment
from labkit.results import summary
from tools import labs


@dataclass(frozen=True)
class Config:
    """What to reproduce."""

    lab: str = ""
    """The lab's short name, such as tp1; with --list all labs if not given."""
    only: tuple[str, ...] = ()
    """Names of experiments; all of the lab's if not given."""
    list: bool = False
    """Print the experiments and stop."""


def collect(experiment: Experiment, runs: list[dict[str, float]], state: dict) -> dict:
    """The content of a results file from the final metrics of all seeds and one run's state."""
    names = dict.fromkeys(name for run in runs for name in run)  # not every seed has them all
    series = {name: [run[name] for run in runs if name in run] for name in names}
    trained = series.get("train_seconds")
    return content(experiment, series, state) | {
        "train_seconds": summary(trained) if trained else {}
    }


def content(experiment: Experiment, series: dict[str, list[float]], state: dict) -> dict:
    """What all results files have; `series` holds the values of each metric, one per seed."""
    floors = {
        name.removeprefix("floor_"): values
        for name, values in series.items()
        if name.startswith("floor_")
    }
    own = {name: values for name, values in floors.items() if len(set(values)) > 1}
    return {
        "script": experiment.script,
        "argv": [argument.removeprefix(f"{machine.ROOT}/") for argument in experiment.arguments],
        "data_source": state["data_source"],
        "seeds": list(experiment.seeds),
        "metrics": {
            name: summary(values)
            for name, values in series.items()
            if not name.startswith("floor_") and not name.endswith("_seconds")
        },
        "floors": {name: fmean(own.get(name, values[:1])) for name, values in floors.items()},
        **({"floor_values": own} if own else {}),  # where each seed has its own test data
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
    found = compared(run)
    series = found["series"] | {name: [value] for name, value in found["floors"].items()}
    seconds = {
        name.removesuffix("/train_seconds"): summary(values)
        for name, values in series.items()
        if name.endswith("/train_seconds")
    }
    results.write(
        experiment.file,
        content(experiment, series, run.state)
        | {"train_seconds": seconds, "seconds": run.state["seconds"]}
        | {name: found[name] for name in ("conclusions", "details")},
    )


def reproduce(experiment: Experiment, seeds: Iterable[int]) -> None:
    """Run `seeds`, those of `experiment`, and write its file."""
    runs = []
    for seed in seeds:
        arguments = [*experiment.arguments, "--seed", str(seed), "--data", experiment.data]
        metrics = importlib.import_module(experiment.script).main([*arguments, "--resume"])
        run = labkit.find_run(experiment.script)
        if run.config["seed"] != seed:
            raise RuntimeError(f"{experiment.script} ran seed {run.config['seed']}, not {seed}")
        if experiment.then:
            examine = importlib.import_module(experiment.then).main
            metrics = metrics | examine(["--run", run.folder.name, "--data", experiment.data])
        runs.append(metrics)
    results.write(experiment.file, collect(experiment, runs, run.state))


def chosen(config: Config) -> list[Experiment]:
    """The experiments that `config` names; exit code 2 where there are none of that name."""
    declared = labs.experiments()
    if config.lab not in declared and not (config.list and not config.lab):
        fail(f"--lab must be one of {', '.join(declared)}, got {config.lab or 'nothing'}")
    found = {
        experiment.name: experiment
        for lab, of_lab in declared.items()
        if config.lab in ("", lab)
        for experiment in of_lab
    }
    if unknown := set(config.only) - set(found):
        fail(f"--only must be among {', '.join(found)}, got {', '.join(sorted(unknown))}")
    return [found[name] for name in config.only or found]


def main(argv: list[str] | None = None) -> None:
    """Run what the arguments name."""
    config = labkit.parse(Config, argv)
    experiments = chosen(config)
    if config.list:
        for experiment in experiments:
            print(experiment.name, *experiment.arguments, "seeds", *experiment.seeds)
        return
    if machine.commit().endswith("-dirty"):
        fail("uncommitted changes outside results/: commit them, then reproduce")
    print(f"Machine: {machine.measure_speed()['gflops']:.0f} GFLOP/s today")
    without = []
    for experiment in experiments:
        try:
            if experiment.comparison:
                reproduce_comparison(experiment)
            else:
                reproduce(experiment, tqdm(experiment.seeds, desc=experiment.name, unit="seed"))
        except SystemExit as refusal:  # the script has said what it lacks
            if refusal.code != 2:
                raise
            without.append(experiment.name)
    if without:
        fail(f"not reproduced, for what the messages above say: {', '.join(without)}")


if __name__ == "__main__":
    main()
