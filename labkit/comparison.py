"""Many trainings under one parent: the test data sealed, choices without them, one written result.

A comparison is one parent run with many *trials*, its child runs: each is one training of one
configuration with one seed. Trials made to choose something can't see the test data; those made to
report see them once, after their training.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labkit import arguments
from labkit.arguments import at_least
from labkit.datasets import Data, Part
from labkit.evidence import markdown, values
from labkit.fan_out import fan_out
from labkit.machine import home
from labkit.run import Run
from labkit.runs import start_run

SWEEP_SEED = 1000
"""The first of the trainings that choose something; the reported ones have seeds below it."""


@dataclass(frozen=True)
class Settings(arguments.Settings):
    """The settings that every comparison has; a script's `Config` adds its own. Usage: there."""

    seeds: int = 3
    """Trainings of each reported configuration, 2 or more: one alone has no spread."""
    seed: int = 0
    """The first seed, of weights, order and augmentation; the others follow it."""
    ray_address: str = "auto"
    """auto: Ray Tune where it is installed and two trainings fit side by side, else one after the
    other; off: one after the other; local: Ray on this machine; or a cluster's address."""
    smoke: bool = False
    """Two seeds and epochs on little data, fewer configurations: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        at_least(self, seeds=2)
        if self.seed + self.seeds > SWEEP_SEED:
            total = self.seed + self.seeds
            raise ValueError(f"--seed + --seeds must be {SWEEP_SEED} or less, got {total}")

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of the reported trainings. Usage: `for seed in config.all_seeds`."""
        return list(range(self.seed, self.seed + (2 if self.smoke else self.seeds)))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training; a script adds what it varies. Usage: `Trial(configuration="adam", seed=0)`."""

    configuration: str
    """What is compared, such as `adam`; letters, digits, `_` and `.`."""
    purpose: Literal["choose", "report"] = "report"
    """choose: no access to the test data; report: one look at them, at the end."""
    seed: int
    smoke: bool = False
    resume: bool = False

    @property
    def run_name(self) -> str:
        """The run's name in the tracking store, see `runs.RUN_NAME`; scripts say their own."""
        return f"{self.configuration}-trial-compared-s{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What one trial measured. Usage: `outcome.metrics["validation_accuracy"]`."""

    trial: Trial
    metrics: dict[str, float]
    history: dict[str, list[float]]
    folder: str
    """Of its run, below `outputs/`, which may be moved."""
    run_id: str | None
    """Its id in the tracking store."""

    @property
    def configuration(self) -> str:
        """What was trained. Usage: `outcome.configuration`."""
        return self.trial.configuration

    @property
    def path(self) -> Path:
        """Its run's folder. Usage: `load_model(outcome.path / "model.keras")`."""
        return home() / "outputs" / self.folder


class SealedTestError(RuntimeError):
    """Test data were asked for by code that chooses, or a second time. Usage: never caught."""


class SealedTest:
    """Test data that open once, and only to report. Usage: `test = data.test.open()`."""

    def __init__(self, part: Part, purpose: str) -> None:
        """Wrap `part`, which opens for the purpose `report` alone."""
        self._part = part if purpose == "report" else None

    def open(self) -> Part:
        """The test data, once.

        Raises `SealedTestError` in a trial that is there to choose something, and at a second call.
        """
        if self._part is None:
            raise SealedTestError(
                "the test data are sealed: this trial chooses, or has already been tested"
            )
        opened, self._part = self._part, None
        return opened


Study = Callable[[Trial, Data, Run], dict[str, float]]
"""A script's `study(trial, data, run)`: builds, fits, saves, and returns the final metrics. Its
`data.test` is a `SealedTest`."""


def run_trial(
    script: str, study: Study, load: Callable[[Trial], Data], parent: str, experiment: str,
    trial: Trial,
) -> Outcome:  # fmt: skip
    """Train one trial as a child run of `parent`, or find it finished. Usage: by `run_trials`."""
    data = load(trial)
    sealed = replace(data, test=SealedTest(data.test, trial.purpose))
    with start_run(script, trial, data.source, trial.run_name, parent, "trial", experiment) as run:
        if not run.is_finished:
            run.log_metrics(study(trial, sealed, run))
    folder = f"{run.folder.parent.name}/{run.folder.name}"
    return Outcome(trial, run.metrics, run.history, folder, run.state["run_id"])


def run_trials(
    run: Run,
    script: str,
    study: Study,
    load: Callable[[Trial], Data],
    trials: Sequence[Trial],
    ray_address: str = "auto",
    label: str = "trials",
    experiment: str = "",
) -> list[Outcome]:
    """All `trials` as children of `run`, in order, on Ray Tune where it helps (see `fan_out`).

    Usage: `outcomes = run_trials(run, __file__, study, load, trials, config.ray_address)`.

    `load(trial)` returns the data that the trial's `study` gets, with the test data under seal;
    it is called for each trial, so it should remember what it made.
    """
    function = partial(run_trial, script, study, load, run.mlflow_id, experiment)
    return fan_out(function, trials, ray_address, label)


def choose(
    outcomes: list[Outcome],
    among: str = "configuration",
    metric: str = "validation_accuracy",
    best: Callable[..., Any] = max,
) -> dict[str, Trial]:
    """Of all settings with the same `among`, the one with the best mean `metric`, by that name.

    Usage: `choose(sweep, among="optimizer")["adam"].learning_rate`. A setting is a trial without
    its seed; `best` is `max` or `min`. Raises `ValueError` when an outcome was made to report:
    choices are made without test data.
    """
    return {
        name: best(settings, key=settings.__getitem__)
        for name, settings in swept(outcomes, among, metric).items()
    }


def swept(
    outcomes: list[Outcome], among: str = "configuration", metric: str = "validation_accuracy"
) -> dict[str, dict[Trial, float]]:
    """The mean `metric` of each setting, in the order of its trials, by what they have in `among`.

    Usage: `swept(sweep, among="optimizer")["adam"]`. Raises as `choose` does.
    """
    if any(outcome.trial.purpose != "choose" for outcome in outcomes):
        raise ValueError("a choice must not see outcomes that were tested")
    measured: dict[str, dict[Trial, list[float]]] = {}
    for outcome in outcomes:
        settings = measured.setdefault(getattr(outcome.trial, among), {})
        setting = replace(outcome.trial, seed=SWEEP_SEED)
        settings.setdefault(setting, []).append(outcome.metrics[metric])
    return {
        name: {setting: float(np.mean(sample)) for setting, sample in settings.items()}
        for name, settings in measured.items()
    }


def at_an_edge(outcomes: list[Outcome], among: str = "configuration") -> list[str]:
    """Those whose best setting is the first or the last that was tried: a wider grid may have a
    better one. Usage: `at_an_edge(sweep, among="optimizer")`."""
    return [
        name
        for name, settings in swept(outcomes, among).items()
        if len(settings) > 1 and np.argmax(list(settings.values())) in (0, len(settings) - 1)
    ]


def conclude(
    run: Run,
    title: str,
    outcomes: list[Outcome],
    columns: dict[str, str],
    conclusions: list[str],
    floors: dict[str, float],
    details: dict[str, Any] | None = None,
    text: str = "",
) -> dict[str, float]:
    """Print and keep what the comparison found; return the mean of every metric, and the floors.

    Usage: `return conclude(run, title, outcomes, columns, sentences, floors(config))`.

    `columns` are the metrics of the printed table with their headings; `floors` have names
    that begin with `floor_`; `text` follows the table. Writes `report.md` and `comparison.json`,
    from which `results/` is made.
    """
    metrics = dict.fromkeys(metric for outcome in outcomes for metric in outcome.metrics)
    series = {
        f"{name}/{metric}": sample
        for metric in metrics
        for name, sample in values(outcomes, metric).items()
        if sample
    }
    seeds = sorted({outcome.trial.seed for outcome in outcomes})
    floor_lines = "".join(
        f"- floor, {name.removeprefix('floor_').replace('_', ' ')}: {value:.4f}\n"
        for name, value in floors.items()
    )
    findings = "".join(f"- {sentence}\n" for sentence in conclusions)
    parts = [markdown(outcomes, columns), floor_lines, findings, text]
    report = (
        f"# {title}\n\nData: {run.data_source}. Seeds {seeds}; mean ± standard deviation.\n\n"
        + "\n".join(filter(None, parts))
    )
    print(f"\n{report}")
    run.save_text("report.md", report)
    content = {
        "seeds": seeds,
        "series": series,
        "floors": floors,
        "conclusions": conclusions,
        "details": details or {},
        "folders": {
            outcome.configuration: outcome.folder
            for outcome in outcomes
            if outcome.trial.seed == seeds[0] and outcome.trial.purpose == "report"
        },
    }
    run.save_text("comparison.json", json.dumps(content, indent=1))
    means = {name: float(np.mean(sample)) for name, sample in series.items()}
    run.log_metrics(means | floors)
    return run.metrics


def show_again(run: Run) -> dict[str, float]:
    """Print a finished comparison's report, return its metrics. Usage: `return show_again(run)`."""
    print(f"\n{(run.folder / 'report.md').read_text()}")
    return run.metrics


def compared(run: Run) -> dict[str, Any]:
    """What `conclude` wrote into `comparison.json`. Usage: `compared(run)["series"]`."""
    return json.loads((run.folder / "comparison.json").read_text())
