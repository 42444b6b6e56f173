"""Reference figures: `results/<name>.json`, written by `tools/`, drawn into the READMEs."""

import json
import statistics
from typing import Any

from labkit.machine import ROOT

FOLDER = ROOT / "results"


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1; None for n = 1), n, values. Usage: `summary([1.0, 2.0])`."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "n": len(values), "values": values}


def in_words(values: list[float], digits: int = 3, unit: str = "") -> str:
    """`mean ± standard deviation unit (n)`. Usage: `in_words([0.97, 0.98])`, 0.975 ± 0.007 (n = 2).

    The deviation is left out of a single value; no value at all is `never`.
    """
    if not values:
        return "never"
    found = summary(values)
    spread = "" if found["std"] is None else f" ± {found['std']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{spread}{unit} (n = {found['n']})"


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy (Wilson, JASA 1927), from counts to 0..1.

    Usage: `low, high = accuracy_interval(9784, 10000)`.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return interval.low, interval.high


def write(name: str, content: dict[str, Any]) -> None:
    """Write `results/<name>.json`. Usage: `write("bench.x", {"seconds": summary(seconds)})`."""
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Wrote {path}")


def read(name: str) -> dict[str, Any]:
    """The content of `results/<name>.json`. Usage: `read("bench.x")["seconds"]["mean"]`."""
    return json.loads((FOLDER / f"{name}.json").read_text())
