"""Reference figures: `results/<name>.json`, written by `tools/`, drawn into the READMEs."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.machine import ROOT

FOLDER = ROOT / "results"


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1; None for n = 1), n, values. Usage: `summary([1.0, 2.0])`."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "n": len(values), "values": values}


def in_words(
    values: Sequence[float], digits: int = 3, unit: str = "", cloud: float = float("inf")
) -> str:
    """`mean ± standard deviation unit (n)`. Usage: `in_words([0.97, 0.98])`, 0.975 ± 0.007 (n = 2).

    The deviation is left out of a single value; no value at all is `never`. Values of which two are
    more than `cloud` apart are no cloud with a mean: each is told, `0.49 / 1.00 / 0.49`.
    """
    if not values:
        return "never"
    if max(values) - min(values) > cloud:
        return " / ".join(f"{value:.{digits}f}{unit}" for value in values)
    found = summary(list(values))
    spread = "" if found["std"] is None else f" ± {found['std']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{spread}{unit} (n = {found['n']})"


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy (Wilson, JASA 1927), from counts to 0..1.

    Usage: `low, high = accuracy_interval(9784, 10000)`.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return interval.low, interval.high


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. Usage: `markdown_table(["model", "test %"], [["dense", "97.9"]])`."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def floors_of(figures: Mapping[str, float], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """The floors in `figures` by name, each with its value in some of `metrics`.

    Usage: `floors_of({"floor_ridge": 0.4, "floor_ridge_mae": 0.5}, ["mse", "mae"])`. A name that
    ends in `_<metric>` belongs to that metric, every other one to the first of `metrics`.
    """
    found: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        name = key.removeprefix("floor_")
        suffixes = [metric for metric in metrics if name.endswith(f"_{metric}")]
        metric = max(suffixes, key=len, default=metrics[0])
        found.setdefault(name.removesuffix(f"_{metric}"), {})[metric] = value
    return found


def beside_floors(
    metrics: Mapping[str, float], shown: Mapping[str, str], name: str = "network", digits: int = 4
) -> str:
    """A table of a result, its floors below it. Usage: `beside_floors(m, {"dice": "Dice"})`.

    `shown` are metrics with their headings; those that `metrics` lacks are left out. Floors are the
    metrics that begin with `floor_`, see `floors_of`.
    """
    shown = {metric: heading for metric, heading in shown.items() if metric in metrics}
    floors = {key: value for key, value in metrics.items() if key.startswith("floor_")}
    lines = {name: metrics} | {
        f"floor: {floor.replace('_', ' ')}": values
        for floor, values in floors_of(floors, list(shown)).items()
    }
    rows = [
        [label, *(f"{found[m]:.{digits}f}" if m in found else "" for m in shown)]
        for label, found in lines.items()
    ]
    return markdown_table(["", *shown.values()], rows)


def write(name: str, content: dict[str, Any]) -> None:
    """Write `results/<name>.json`. Usage: `write("bench.x", {"seconds": summary(seconds)})`."""
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Wrote {path}")


def exists(name: str) -> bool:
    """Whether `results/<name>.json` is there. Usage: `if exists("bench.x")`."""
    return (FOLDER / f"{name}.json").exists()


def read(name: str) -> dict[str, Any]:
    """The content of `results/<name>.json`. Usage: `read("bench.x")["seconds"]["mean"]`."""
    return json.loads((FOLDER / f"{name}.json").read_text())
