"""What every script of every lab promises; each is found, none is named.

A training is run on its smoke data as a user would, but without building graphs, which is most of a
small training's time (those are for each lab's own tests). Then twice more, without the tracking
store: with other test labels; with other validation labels, and its first epoch declared the best.
What may not change between these is compared to the bit. A last one, with another seed, stops at
its first batch.
"""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import labkit
from labkit import tracking
from labkit.batches import Batches
from tools import labs

SCRIPTS = labs.scripts()
TRAININGS = [script for script in SCRIPTS if script.trains]
OTHERS = [
    script
    for script in SCRIPTS
    if "smoke" in script.flags and not script.trains and not hasattr(script.module, "EXAMINES")
]
EXAMINATIONS = [script for script in SCRIPTS if hasattr(script.module, "EXAMINES")]
HEAVY = {"tensorflow", "keras", "mlflow", "sklearn", "scipy", "matplotlib", "ray"}
CHOSEN = re.compile(
    r"(^|/)(train_(?!seconds)|threshold|best_epoch|chosen|calibration)|(^|[/_])validation_"
)
"""Metrics that no test label may change."""
SEEN_BY_FIT = re.compile(r"(?!val_|validation_|seconds)")
"""Columns of a history that no validation label may change."""


def by_name(scripts: list[labs.Script]) -> Any:
    return pytest.mark.parametrize("script", scripts, ids=lambda script: script.name)


def arguments_of(script: labs.Script, *more: str) -> list[str]:
    return ["--smoke", *(["--data", "sample"] if "data" in script.flags else []), *more]


# --- The command line ----------------------------------------------------------------------------


@by_name(SCRIPTS)
def test_help_is_whole_and_loads_nothing_heavy(script, python):
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print('LOADED', *{name.split('.')[0] for name in sys.modules})\n"
    )
    done = python("-c", code, script.command)
    assert done.returncode == 0, done.stderr
    text, _, loaded = done.stdout.partition("LOADED")
    assert not HEAVY & set(loaded.split())
    for name in script.flags:
        flag = name.replace("_", "-")
        assert f"--{flag}" in text or re.search(rf"\b{flag.upper()}\b|positional", text)
    assert re.search(r"^.*\?", text, re.MULTILINE) or not script.trains  # the question it answers


@by_name(TRAININGS)
@pytest.mark.parametrize(
    ("flag", "value"),
    [("epochs", "0"), ("seeds", "0"), ("seed", "-1"), ("data", "x"), ("nonsense", "1")],
)
def test_bad_values_are_one_message_and_exit_code_2(script, flag, value, capsys):
    if flag not in script.flags | {"nonsense"}:
        pytest.skip(f"no --{flag}")
    with pytest.raises(SystemExit) as stop:
        script.module.main([f"--{flag}", value])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"--{flag}" in message
    assert value in message


@by_name(TRAININGS)
def test_without_real_data_it_says_what_was_tried(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.module.main(["--smoke", "--data", "real"])
    assert stop.value.code == 2
    assert "--data real" in capsys.readouterr().err


# --- Trainings, watched --------------------------------------------------------------------------


class EnoughError(Exception):
    """The first batches were seen; nothing more is wanted of this run."""


@dataclass
class Watched:
    """What a run did, seen from outside."""

    metrics: dict[str, float] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    """State of each run that trained, by its name and settings."""
    weights: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """Of each saved model, by its run."""
    orders: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    """Examples in the order in which `fit()` saw them first, by seed."""
    first_epochs: list[list[np.ndarray]] = field(default_factory=list)
    """Weights after the first epoch of trainings that keep the best, in their order."""
    home: Path = Path()


def other_labels(part: Any) -> Any:
    """The same inputs with each other's truth."""
    order = np.random.default_rng(0).permutation(len(part.y))
    return replace(part, y=part.y[order])


class FirstIsBest(keras.callbacks.Callback):
    """Declares the first epoch the best one, whatever was measured, and keeps its weights."""

    def __init__(self, keeper: keras.callbacks.Callback, monitor: str, mode: str, seen: list):
        super().__init__()
        self.keeper, self.monitor, self.mode, self.seen = keeper, monitor, mode, seen

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.keeper.set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch == 0:
            self.seen.append(self.model.get_weights())
        good = epoch == 0
        logs[self.monitor] = 0.9 if good == (self.mode == "max") else 0.1
        self.keeper.on_epoch_end(epoch, logs)


@contextmanager
def watching(
    script: labs.Script, part: str, first_is_best: bool, stop: bool, tracked: bool
) -> Iterator[Watched]:
    """Poison `part` of the data, if it is named, and watch what is trained meanwhile."""
    found, seeds = Watched(), [0]
    fit, load = keras.Model.fit, script.module.load
    trainer = next(kind for kind in keras.Model.__mro__ if "compile" in vars(kind))
    compile_model = trainer.compile
    keeps_best, seed_all = labkit.Run.keeps_best, keras.utils.set_random_seed

    def watched_fit(model, x=None, *rest, **settings):
        if isinstance(x, Batches):
            assert settings.get("shuffle") is False, "fit() would shuffle the batches' order again"
            order, seed = tuple(x.order[:100]), x.seed
        else:
            assert settings.get("shuffle", True)
            order, seed = ("by the seed of Keras", seeds[-1]), seeds[-1]
        found.orders.setdefault(seed, []).append((len(x), *order))
        if stop:
            raise EnoughError
        return fit(model, x, *rest, **settings)

    def poisoned_load(*arguments, **settings):
        data = load(*arguments, **settings)
        return replace(data, **{part: other_labels(getattr(data, part))}) if part else data

    def forced(run, monitor, mode):
        keeper = keeps_best(run, monitor, mode)
        return FirstIsBest(keeper, monitor, mode, found.first_epochs)

    def without_graph(model, *arguments, **settings):
        settings |= {"run_eagerly": True, "jit_compile": False}
        return compile_model(model, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", watched_fit)
        patch.setattr(trainer, "compile", without_graph)
        if not tracked:
            patch.setattr(tracking.Mirror, "begin", lambda *arguments: {})
        patch.setattr(keras.utils, "set_random_seed", lambda s: (seeds.append(s), seed_all(s)))
        patch.setattr(script.module, "load", poisoned_load)
        if first_is_best:
            patch.setattr(labkit.Run, "keeps_best", forced)
        yield found


def weights_in(file: Path) -> list[np.ndarray]:
    """Every array of a `.keras` file, read without building the model."""
    found = []
    with zipfile.ZipFile(file) as archive:
        content = BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as weights:
        weights.visititems(
            lambda name, item: found.append(item[()])
            if isinstance(item, h5py.Dataset) and "optimizer" not in name else None
        )  # fmt: skip
    return found


def train(
    script: labs.Script, home: Path, *more: str, part: str = "", first_is_best: bool = False,
    stop: bool = False, tracked: bool = False,
) -> Watched:  # fmt: skip
    """Run the script's smoke training with its outputs in `home`."""
    home.mkdir(exist_ok=True)
    watched = watching(script, part, first_is_best, stop, tracked)
    with pytest.MonkeyPatch.context() as patch, watched as seen:
        patch.setenv("LABKIT_HOME", str(home))
        patch.delenv("LABKIT_DATA", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            seen.metrics = script.module.main(arguments_of(script, *more))
        except EnoughError:
            return seen
    seen.home = home
    for path in sorted((home / "outputs").glob(f"{script.name}*/*/state.json")):
        state = json.loads(path.read_text())
        key = json.dumps([state["name"], state["config"]], sort_keys=True)
        seen.runs[key] = state
        for model in path.parent.glob("*.keras"):
            seen.weights[f"{key} {model.name}"] = weights_in(model)
    return seen


@pytest.fixture(params=TRAININGS, ids=lambda script: script.name)
def script(request) -> labs.Script:
    return request.param


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> tuple[Path, dict[tuple[str, str], Watched]]:
    """What was run already, and where: no run is made twice, in whatever order the tests come."""
    return tmp_path_factory.mktemp("runs"), {}


def once(known: tuple[Path, dict], script: labs.Script, kind: str, **settings: Any) -> Watched:
    """The script's run of this kind, made at its first use."""
    (folder, runs), key = known, (script.name, kind)
    if key not in runs:
        runs[key] = train(script, folder / f"{script.name}-{kind}", **settings)
    return runs[key]


@pytest.fixture
def clean(script, known) -> Watched:
    """As it is, tracked."""
    return once(known, script, "clean", tracked=True)


@pytest.fixture
def other_validation(script, known) -> Watched:
    return once(known, script, "validation", part="validation", first_is_best=True)


def assert_same_arrays(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert len(first) == len(second)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_smoke_run_ends_with_finite_metrics(script, clean):
    assert clean.metrics
    assert all(isinstance(value, float) for value in clean.metrics.values())
    assert np.isfinite(list(clean.metrics.values())).all()
    assert any("floor_" in name for name in clean.metrics)
    epochs = [max(map(len, state["history"].values())) for state in clean.runs.values()
              if state["history"]]  # fmt: skip
    assert min(epochs) >= 2, "with one epoch nothing is chosen"
    assert clean.weights


def test_a_finished_run_is_not_repeated(script, clean, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_HOME", str(clean.home))
    monkeypatch.setattr(keras.Model, "fit", None)
    assert script.module.main(arguments_of(script, "--resume")) == clean.metrics
    assert "Nothing left to do" in capsys.readouterr().out


def test_its_examination_repeats_the_test_figures(script, clean, monkeypatch):
    examinations = [each for each in EXAMINATIONS if script.name in each.module.EXAMINES]
    if not examinations:
        pytest.skip("no examination")
    monkeypatch.setenv("LABKIT_HOME", str(clean.home))
    for examination in examinations:
        folder = labkit.find_run(script.name).folder.name
        found = examination.module.main(arguments_of(examination, "--run", folder))
        series = clean.metrics
        compared = clean.home / "outputs" / script.name / folder / "comparison.json"
        if compared.exists():  # an examination of a comparison is of its first seed
            series = {n: v[0] for n, v in json.loads(compared.read_text())["series"].items()}
        same = [name for name in found if name in series and "seconds" not in name]
        assert same
        for name in same:
            assert found[name] == pytest.approx(series[name], rel=1e-6, abs=1e-9), name


def test_test_labels_change_test_figures_and_nothing_else(script, clean, tmp_path):
    other = train(script, tmp_path / "home", part="test")
    assert other.runs.keys() == clean.runs.keys()
    assert other.weights.keys() == clean.weights.keys()
    for key, weights in clean.weights.items():
        assert_same_arrays(weights, other.weights[key])
    for key, state in clean.runs.items():
        for name, values in state["history"].items():
            if "seconds" not in name:
                assert values == other.runs[key]["history"][name], name
        for name, value in state["metrics"].items():
            if CHOSEN.search(name):
                assert value == other.runs[key]["metrics"][name], name
    changed = [n for n, v in clean.metrics.items() if v != other.metrics[n] and "second" not in n]
    assert changed, "no figure depends on the test labels"


def test_validation_labels_change_nothing_that_fit_sees(script, clean, other_validation):
    common = clean.runs.keys() & other_validation.runs.keys()
    assert common
    figures = []
    for key in common:
        before, after = clean.runs[key], other_validation.runs[key]
        for name, values in before["history"].items():
            both = list(zip(values, after["history"][name], strict=False))
            if SEEN_BY_FIT.match(name):
                assert all(first == second for first, second in both), name
            elif "seconds" not in name:
                figures += [first != second for first, second in both]
        figures += [
            value != after["metrics"].get(name)
            for name, value in before["metrics"].items()
            if "validation_" in name
        ]
    assert any(figures), "no figure depends on the validation labels"


def test_the_weights_of_the_best_epoch_are_the_ones_tested(script, other_validation):
    if not other_validation.first_epochs:
        pytest.skip("the last epoch's weights are tested, by design")
    saved = list(other_validation.weights.values())
    for expected in other_validation.first_epochs:
        fits = [
            arrays
            for arrays in saved
            if all(any(np.array_equal(array, kept) for kept in arrays) for array in expected)
        ]
        assert fits, "no saved model has the weights of the epoch that was declared the best"


def test_another_seed_is_another_order(script, clean, tmp_path):
    orders = clean.orders
    if len(orders) < 2:
        orders = orders | train(script, tmp_path / "home", "--seed", "1", stop=True).orders
    assert len(orders) >= 2
    firsts = [of_seed[0] for of_seed in orders.values()]
    assert len(set(firsts)) == len(firsts)


# --- The other scripts ---------------------------------------------------------------------------


@by_name(OTHERS)
def test_the_other_scripts_end_well_and_are_not_repeated(script, capsys):
    metrics = script.module.main(arguments_of(script))
    assert metrics
    assert np.isfinite(list(metrics.values())).all()
    if "resume" in script.flags:
        assert script.module.main(arguments_of(script, "--resume")) == metrics
        assert "Nothing left to do" in capsys.readouterr().out


@by_name(EXAMINATIONS)
def test_an_examination_without_a_run_says_what_to_do(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.module.main(arguments_of(script))
    assert stop.value.code == 2
    message = capsys.readouterr().err
    for name in script.module.EXAMINES:
        assert f"python {name.replace('.', '/')}.py" in message
        importlib.import_module(name)


@by_name(EXAMINATIONS)
def test_an_unknown_run_is_named(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.module.main(arguments_of(script, "--run", "no-such-run"))
    assert stop.value.code == 2
    assert "no-such-run" in capsys.readouterr().err


def test_every_training_is_examined():
    examined = {name for script in EXAMINATIONS for name in script.module.EXAMINES}
    known = {script.name for script in TRAININGS}
    assert examined <= known
