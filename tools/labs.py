"""What there is in the labs: scripts, experiments, tables, data origins. Names none of them.

A lab or a task adds a folder `tp*/...` and is found: its scripts by their `main`, its figures by
`experiments.py`, its data by a module's `ORIGIN` or `ORIGINS`.
"""

import ast
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from labkit.experiments import Experiment
from labkit.files import Origin, entries
from labkit.machine import ROOT
from labkit.sources import script_name


@dataclass(frozen=True)
class Script:
    """A file that a user runs."""

    path: Path

    @property
    def name(self) -> str:
        """Dotted, such as `tp1_mnist_api.train_model`."""
        return script_name(self.path)

    @property
    def command(self) -> str:
        """What stands behind `python` on the command line."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> ModuleType:
        """The script, imported."""
        return importlib.import_module(self.name)

    @property
    def flags(self) -> set[str]:
        """The fields of its `Config`."""
        return {field.name for field in dataclasses.fields(self.module.Config)}

    @property
    def trains(self) -> bool:
        """Whether it trains: it can be resumed, and takes data in three parts from `load()`."""
        return {"smoke", "resume", "seed"} <= self.flags and hasattr(self.module, "load")


def _files(*patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        yield from entries(ROOT, pattern)


@cache
def _assigned(path: Path) -> frozenset[str]:
    """Names of the functions, classes and variables at the top of a module."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            names.add("__main__")
    return frozenset(names)


def scripts() -> list[Script]:
    """Every script of every lab with a command line of its own."""
    return [
        Script(path)
        for path in _files("tp*/**/*.py")
        if {"main", "Config", "__main__"} <= _assigned(path)
    ]


def _declarations(name: str) -> Iterator[tuple[str, object]]:
    """The lab's short name and what its `experiments.py`, or those of its tasks, call `name`."""
    for path in _files("tp*/**/experiments.py"):
        lab = path.relative_to(ROOT).parts[0].partition("_")[0]
        module = importlib.import_module(script_name(path))
        if hasattr(module, name):
            yield lab, getattr(module, name)


def experiments() -> dict[str, list[Experiment]]:
    """The experiments of each lab, by its short name such as `tp1`."""
    found: dict[str, list[Experiment]] = {}
    for lab, declared in _declarations("EXPERIMENTS"):
        found.setdefault(lab, []).extend(declared)
    return found


def tables() -> dict[str, Callable[[], str]]:
    """The functions that draw README tables, by name. Raises `ValueError` for one that is twice."""
    found: dict[str, Callable[[], str]] = {}
    for _, declared in _declarations("TABLES"):
        if twice := set(found) & set(declared):
            raise ValueError(f"two tables are called {', '.join(sorted(twice))}")
        found |= declared
    return found


def origins() -> list[Origin]:
    """Every real data set that some module declares, in the order of their names."""
    found: dict[str, Origin] = {}
    for path in _files("labkit/*.py", "tp*/**/*.py"):
        if not {"ORIGIN", "ORIGINS"} & _assigned(path):
            continue
        module = importlib.import_module(script_name(path))
        declared = [getattr(module, "ORIGIN", None), *getattr(module, "ORIGINS", {}).values()]
        found |= {origin.name: origin for origin in declared if origin}
    return [found[name] for name in sorted(found, key=str.lower)]
