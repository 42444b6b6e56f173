"""Command lines from dataclasses, with answers fast enough for `--help`."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, Literal, TypeVar

import tyro

from labkit.environment import ROOT, other_clone

DataChoice = Literal["auto", "real", "sample"]

ConfigType = TypeVar("ConfigType")


@dataclass(frozen=True)
class Settings:
    """The settings that every training has; a script's `Config` adds its own. Usage: there."""

    epochs: int | None = None
    """Passes over the training examples, 1 or more; if not given, the script's own number."""
    seed: int = 0
    """Seed of weights, order and augmentation, of all that is random but the split."""
    data: DataChoice = "auto"
    """auto: the real data or, without them, a sample; real: real or an error; sample: a sample."""
    smoke: bool = False
    """Two epochs on little data, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        at_least(self, epochs=1, seed=0)


def parse(config_class: type[ConfigType], argv: Sequence[str] | None = None) -> ConfigType:
    """Read the command line into `config_class` and print what differs from its defaults.

    Usage: `config = labkit.parse(Config, argv)`, where `argv=None` reads `sys.argv`.

    Every field becomes a flag and the string below it becomes its help line. An unknown flag, a
    value of the wrong type, or a `ValueError` raised by the dataclass's `__post_init__` is one
    message on standard error and exit code 2.
    """
    script = sys.modules.get(config_class.__module__)
    if clone := other_clone(script):
        fail(f"this is {clone}, but its environment runs the code of {ROOT}: run `make setup` here")
    if argv is None and "ipykernel" in sys.modules:
        fail("in a notebook the arguments are not ours: call main([]) or main(['--smoke'])")
    try:
        config = tyro.cli(
            config_class,
            args=argv,
            description=script.__doc__ if script else None,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValueError as error:
        fail(str(error))
    changed = {
        field.name: getattr(config, field.name)
        for field in fields(config_class)
        if getattr(config, field.name) != field.default
    }
    if changed:
        print("Settings:", ", ".join(f"{name}={value}" for name, value in changed.items()))
    return config


def at_least(config: Any, **limits: float) -> None:
    """Refuse a field below its limit. Usage: `at_least(self, epochs=1)` in `__post_init__`.

    A field that is None was not given and passes. Raises `ValueError` naming flag, limit, value.
    """
    for name, limit in limits.items():
        value = getattr(config, name)
        if value is not None and value < limit:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} must be {limit} or more, got {value}")


def fail(message: str) -> None:
    """Leave with exit code 2, the code of a user's mistake. Usage: `fail("--epochs 0 is below 1")`.

    Raises `SystemExit`, always.
    """
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def lazy(name: str) -> ModuleType:
    """A module that is imported at its first use. Usage: `keras = labkit.lazy("keras")`.

    TensorFlow takes about three seconds to import; a script that asks for it this way still
    answers `--help` at once.
    """
    return _LazyModule(name)


class _LazyModule(ModuleType):
    def __reduce__(self) -> tuple:  # Ray sends functions, and what they use, to other processes
        return lazy, (self.__name__,)

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self.__name__), attribute)
