"""Write the README tables from `results/*.json` and the code, between their markers.

    python tools/tables.py            # rewrite what changed
    python tools/tables.py --check    # exit code 1 if something would change

Each lab's `experiments.py` says how its tables are drawn.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import labkit
from labkit.evidence import mean_interval
from labkit.files import entries
from labkit.machine import ROOT
from labkit.results import markdown_table, read
from tools import labs

QUOTE = re.compile(
    r"(<!-- = (?P<result>[a-z0-9_.]+) (?P<first>[a-z0-9_.]+)(?: - (?P<second>[a-z0-9_.]+))?"
    r"/(?P<metric>[a-z0-9_.]+) -->).*?(<!-- / -->)",
    re.DOTALL,
)
"""A stored figure in the middle of a sentence: of one configuration, or a difference of two."""
MARKER = re.compile(r"(<!-- table:(?P<name>[a-z0-9_]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """What to do with the tables."""

    check: bool = False
    """Only say what is out of date."""


def quote(match: re.Match) -> str:
    """The quoted figure: a mean, or a paired difference of means, with its 95 % interval."""
    metrics, metric = read(match["result"])["metrics"], match["metric"]
    values = metrics[f"{match['first']}/{metric}"]["values"]
    factor, unit = (100, "%") if "accuracy" in metric else (1, "")
    sign, digits = "", 2 if "accuracy" in metric else 1
    if match["second"]:
        other = metrics[f"{match['second']}/{metric}"]["values"]
        values = [a - b for a, b in zip(values, other, strict=True)]
        sign, unit = "+", "points"
    mean, low, high = (
        f"{factor * value:{sign}.{digits}f}" for value in (fmean(values), *mean_interval(values))
    )
    interval = "in every seed" if low.endswith("nan") else f"[{low}, {high}]"
    return f"{match[1]}{mean} {unit} {interval}{match[match.re.groups]}"


def data_licences() -> str:
    """Origin and licence of every data set that a module declares."""
    rows = []
    for origin in labs.origins():
        digest = origin.content_sha256[:8] or origin.digest.partition(":")[2][:8]
        algorithm = "" if origin.content_sha256 else origin.digest.partition(":")[0]
        recognised = f"{algorithm} `{digest}`".strip() if digest else "its layout"
        rows.append(
            [
                f"[{origin.name}]({origin.page})", origin.credit, origin.licence, recognised,
                origin.sample or "none",
            ]
        )  # fmt: skip
    return markdown_table(["data set", "by", "licence", "recognised by", "without it"], rows)


@cache
def drawers() -> dict[str, Callable[[], str]]:
    """Every table by its name."""
    return {"data_licences": data_licences, **labs.tables()}


def render(text: str) -> str:
    """`text` with every marked table and every quoted figure written anew."""
    text = QUOTE.sub(quote, text)
    return MARKER.sub(lambda match: match[1] + drawers()[match["name"]]() + match[3], text)


def pages() -> list[Path]:
    """The Markdown pages that may hold tables."""
    folders = ("*.md", "docs/*.md", "tp*/**/README.md")
    return [page for folder in folders for page in entries(ROOT, folder)]


def main(argv: list[str] | None = None) -> None:
    """Rewrite or check all pages."""
    config = labkit.parse(Config, argv)
    stale = [page for page in pages() if render(page.read_text()) != page.read_text()]
    for page in stale:
        print(("out of date: " if config.check else "wrote ") + str(page.relative_to(ROOT)))
        if not config.check:
            page.write_text(render(page.read_text()))
    if config.check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
