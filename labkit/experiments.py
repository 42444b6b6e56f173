"""What a lab declares of its figures: how they are made, what they must reach, how they are shown.

A lab's or a task's `experiments.py` holds `EXPERIMENTS`, a tuple of `Experiment`, and `TABLES`,
functions by name that draw README tables from `results/`. `tools/` finds both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import results


@dataclass(frozen=True)
class Gate:
    """What a reference figure must be. Usage: `Gate("test_accuracy", 0.975, 0.99)`."""

    metric: str
    """Name in the results file; of a comparison `<configuration>/<metric>`."""
    lowest: float
    """The least that the mean over seeds may be: below, a rerun has broken something."""
    highest: float
    """The most that it may be: above, it is too good to be true."""
    above: tuple[str, ...] = ()
    """Floors (`floor_<name>`) or metrics that every seed must be above; `file:metric` of another
    results file. Where each seed has a floor of its own, it is held to that."""
    below: tuple[str, ...] = ()
    """Those that every seed must be below: for errors."""

    def failures(self, content: dict[str, Any]) -> list[str]:
        """What is wrong with the figure in `content`, in words. Usage: `assert not failures`."""
        found = content["metrics"].get(self.metric)
        if found is None:
            return [f"{self.metric} is not there"]
        wrong = []
        if not self.lowest <= found["mean"] <= self.highest:
            wrong.append(
                f"{self.metric} is {found['mean']:.4f}, not in {self.lowest} to {self.highest}"
            )
        for names, worst, side, sign in (
            (self.above, max, "above", 1),
            (self.below, min, "below", -1),
        ):
            for name in names:
                limits = _limits(name, content, worst, len(found["values"]))
                pairs = zip(found["values"], limits, strict=True)
                value, limit = min(pairs, key=lambda pair: sign * (pair[0] - pair[1]))
                if sign * value <= sign * limit:
                    wrong.append(f"{self.metric}: {value:.4f} is not {side} {name}, {limit:.4f}")
        return wrong


def _limits(
    name: str, content: dict[str, Any], worst: Callable[[list[float]], float], seeds: int
) -> list[float]:
    """For each seed what it is held to: its own floor, where that is another in each."""
    file, _, metric = name.rpartition(":")
    content = results.read(file) if file else content
    if not metric.startswith("floor_"):
        return [worst(content["metrics"][metric]["values"])] * seeds
    floor = metric.removeprefix("floor_")
    own = content.get("floor_values", {}).get(floor)
    return own or [content["floors"][floor]] * seeds


@dataclass(frozen=True)
class Experiment:
    """A script with fixed arguments over some seeds: one file in `results/`. Usage: see labs."""

    script: str
    """Dotted name, such as `tp1_mnist_api.train_model`."""
    variant: str = ""
    """Tells the script's experiments apart; the last part of the file's name."""
    arguments: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    then: str = ""
    """Script that examines each finished run; its metrics join those of the training."""
    data: str = "real"
    """What the script is told of data: some images are generated, by design."""
    comparison: bool = False
    """The script runs all seeds itself, of several configurations."""
    gates: tuple[Gate, ...] = ()

    @property
    def name(self) -> str:
        """What `--only` and the progress bar call it. Usage: `experiment.name`."""
        task = self.script.split(".")[1:-1]
        return "_".join([*task, self.variant]) if self.variant else self.script.split(".", 1)[1]

    @property
    def file(self) -> str:
        """Name of its results file, without the ending. Usage: `results.read(experiment.file)`."""
        return f"{self.script}.{self.variant}".removesuffix(".")


@dataclass(frozen=True)
class Row:
    """A row of a README table. Usage: `Row("hand-out's CNN", "tp3_cnn_resnet....cnn")`."""

    label: str
    file: str
    """Of `results/`; a row whose file is not there is left out."""
    configuration: str = ""
    """Of a comparison."""

    def summary(self, metric: str) -> dict[str, Any] | None:
        """Mean, deviation, n and values of `metric`, if it is there. Usage: by `table_of`."""
        content = results.read(self.file)
        if metric == "train_seconds":
            seconds = content["train_seconds"]
            return (seconds.get(self.configuration) if self.configuration else seconds) or None
        return content["metrics"].get("/".join(filter(None, (self.configuration, metric))))


@dataclass(frozen=True)
class Column:
    """A metric of a README table. Usage: `Column("test %", "test_accuracy", 100)`."""

    heading: str
    metric: str
    """Name in the results file; `train_seconds` is the training time."""
    factor: float = 1
    digits: int = 2
    bold: bool = False
    plain: bool = False
    """Only the mean, with thousands apart: for what no seed changes."""
    absent: str = ""
    """What stands where there is no figure, such as a target that was never reached."""
    cloud: float = float("inf")
    """Seeds further apart than this are told one by one: they have no mean worth telling."""

    def cell(self, found: dict[str, Any] | None) -> str:
        """The text for a metric's summary. Usage: `column.cell(row.summary(column.metric))`."""
        if not found:
            return self.absent
        if self.plain:
            return f"{self.factor * found['mean']:,.{self.digits}f}"
        text = spread(found, self.factor, self.digits, self.cloud)
        return f"**{text}**" if self.bold else text


def spread(
    found: dict[str, Any], factor: float = 1, digits: int = 2, cloud: float = float("inf")
) -> str:
    """`mean ± sd (n = ...)` of a stored summary. Usage: `spread(metrics["dice"], digits=3)`.

    `cloud` is as in `results.in_words`, in the unit of what is shown.
    """
    values = [factor * value for value in found["values"]]
    return results.in_words(values, digits, cloud=cloud)


def table_of(
    rows: Iterable[Row],
    columns: Sequence[Column],
    title: str = "",
    main: str = "",
    floors_from: Sequence[Row] | None = None,
    turned: bool = False,
) -> str:
    """A README table: the floors first, then `rows`; what a column shows is also shown of floors.

    Usage: `table_of([Row("dense", file)], [Column("test %", "test_accuracy", 100)])`.

    `main` is the metric of floors whose names end in no other; the first column's if not given.
    `floors_from` are the rows whose floors are shown, all if not given. `turned`: a row per
    metric. Where training times are shown, a line says on what machine.
    """
    rows = [row for row in rows if results.exists(row.file)]
    metrics = [column.metric for column in columns]
    first = main or metrics[0]
    metrics.sort(key=lambda metric: metric != first)
    stored = [results.read(row.file) for row in (rows if floors_from is None else floors_from)]
    figures = {name: value for content in stored for name, value in content["floors"].items()}
    floors = results.floors_of(figures, metrics)
    lines = [["", *(column.heading for column in columns)]]
    for name, values in sorted(floors.items(), key=lambda item: item[1].get(metrics[0], 0.0)):
        cells = [
            f"{column.factor * values[column.metric]:.{column.digits}f}"
            if column.metric in values else ""
            for column in columns
        ]  # fmt: skip
        lines.append([f"floor: {name.replace('_', ' ')}", *cells])
    for row in rows:
        lines.append([row.label, *(column.cell(row.summary(column.metric)) for column in columns)])
    lines[0][0] = title
    if turned:
        lines = [list(line) for line in zip(*lines, strict=True)]
    text = results.markdown_table(lines[0], lines[1:])
    if any("seconds" in metric for metric in metrics):
        text += "\n" + machines([results.read(row.file) for row in rows]) + "\n"
    return text


def machines(contents: Sequence[dict[str, Any]]) -> str:
    """What seconds were measured on, in a line. Usage: `machines([read("bench.x")])`."""
    found = []
    for content in contents:
        machine = content["machine"]
        speed = "its speed that day was not recorded"
        if "gflops" in machine:
            arithmetic = machine["gflops_precision"].removeprefix("mixed_")
            speed = f"{machine['gflops']:.0f} GFLOP/s in a {arithmetic} convolution that day"
        found.append(f"{machine['cpu']}, {machine['cores']} cores, {speed}")
    return f"Seconds on: {'; '.join(dict.fromkeys(found))}."


def findings(file: str) -> str:
    """The sentences that a comparison itself drew from its figures. Usage: `findings(name)`."""
    return "".join(f"- {sentence}\n" for sentence in results.read(file)["conclusions"])
