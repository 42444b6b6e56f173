"""Published figures: complete, from real data, drawn into the READMEs, and not too good."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, table_of
from tests.conftest import ROOT
from tools import labs, reproduce, tables

EXPERIMENTS = [experiment for of_lab in labs.experiments().values() for experiment in of_lab]
BY_FILE = {experiment.file: experiment for experiment in EXPERIMENTS}
TRAININGS = sorted(
    path for path in results.FOLDER.glob("*.json") if not path.name.startswith("bench.")
)
GATES = [
    pytest.param(experiment, gate, id=f"{experiment.file}-{gate.metric}")
    for experiment in EXPERIMENTS
    for gate in experiment.gates
]


def test_seeds_that_are_no_cloud_are_told_one_by_one():
    assert results.in_words([0.487, 1.0, 0.487], cloud=0.25) == "0.487 / 1.000 / 0.487"
    assert results.in_words([0.5, 0.6], 2, cloud=0.25) == "0.55 ± 0.07 (n = 2)"
    column = Column("test %", "accuracy", 100, 1, cloud=25)
    assert column.cell(results.summary([0.2, 0.9])) == "20.0 / 90.0"
    assert column.cell(results.summary([0.8, 0.9])) == "85.0 ± 7.1 (n = 2)"


def test_tables_are_up_to_date():
    tables.main(["--check"])


@pytest.fixture
def page(tmp_path, monkeypatch) -> Path:
    """A page with one table, as it should be."""
    path = tmp_path / "README.md"
    name = next(iter(labs.tables()))
    path.write_text(tables.render(f"<!-- table:{name} -->\n<!-- /table -->\n"))
    monkeypatch.setattr(tables, "pages", lambda: [path])
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    return path


def test_check_fails_on_a_drifted_figure_and_changes_nothing(page, capsys):
    right = page.read_text()
    tables.main(["--check"])
    drifted = re.sub(r"\d\.\d", "9.9", right)
    assert drifted != right
    page.write_text(drifted)
    with pytest.raises(SystemExit) as stop:
        tables.main(["--check"])
    assert stop.value.code == 1
    assert "out of date: README.md" in capsys.readouterr().out
    assert page.read_text() == drifted
    tables.main([])
    assert page.read_text() == right


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_result_is_declared_complete_and_real(path: Path):
    experiment = BY_FILE[path.stem]
    content = json.loads(path.read_text())
    keys = {"script", "argv", "data_source", "seeds", "metrics", "floors", "train_seconds"}
    keys |= {"machine", "versions", "commit"}
    if experiment.comparison:
        keys |= {"seconds", "conclusions", "details"}
    assert set(content) - {"floor_values"} == keys  # those where each seed has its own
    assert content["script"] == experiment.script
    assert tuple(content["seeds"]) == experiment.seeds
    declared = [str(a).removeprefix(f"{ROOT}/") for a in experiment.arguments]
    assert content["argv"] == declared
    assert not content["data_source"].startswith("sample")
    assert not content["commit"].endswith(("dirty", "unknown"))
    for name, summary in content["metrics"].items():
        assert summary["n"] == len(summary["values"])
        if "_to_" in name or name.startswith("all_"):  # a seed may not arrive; folds are complete
            # with the last one only
            assert summary["n"] <= len(content["seeds"])
        else:
            least = 1 if content["train_seconds"].get("mean", 0) > 600 else 3
            assert summary["n"] == len(content["seeds"]) >= least
        assert summary["mean"] == pytest.approx(np.mean(summary["values"]))


@pytest.mark.parametrize(("experiment", "gate"), GATES)
def test_a_reference_figure_is_neither_too_bad_nor_too_good(experiment, gate):
    if not results.exists(experiment.file):
        pytest.skip("not measured yet")
    assert not gate.failures(results.read(experiment.file))


def figure(*values: float) -> dict:
    return results.summary(list(values))


CONTENT = {
    "metrics": {"test_accuracy": figure(0.90, 0.92), "mse": figure(0.2, 0.3)},
    "floors": {"linear": 0.85, "ridge": 0.31, "linear_mse": 0.4},
    "train_seconds": figure(10.0, 14.0),
    "machine": {"cpu": "abacus", "cores": 2, "gflops": 123.4, "gflops_precision": "float32"},
}

OF_FOLDS = CONTENT | {  # each seed has its own test data, and floors
    "floors": CONTENT["floors"] | {"easy": 0.9, "hard": 0.9},
    "floor_values": {"easy": [0.89, 0.91], "hard": [0.91, 0.89]},
}


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        (Gate("test_accuracy", 0.9, 0.95), ""),
        (Gate("test_accuracy", 0.92, 0.95), "is 0.9100, not in"),
        (Gate("test_accuracy", 0.8, 0.9), "is 0.9100, not in"),
        (Gate("test_accuracy", 0.9, 0.95, above=("floor_linear",)), ""),
        (Gate("test_accuracy", 0.9, 0.95, above=("floor_easy",)), ""),
        (Gate("test_accuracy", 0.9, 0.95, above=("floor_hard",)), "above floor_hard, 0.9100"),
        (Gate("mse", 0.2, 0.3, above=("floor_linear",)), "0.2000 is not above floor_linear"),
        (Gate("mse", 0.2, 0.3, below=("floor_ridge",)), ""),
        (Gate("mse", 0.2, 0.3, below=("test_accuracy", "floor_ridge")), ""),
        (Gate("test_accuracy", 0.9, 0.95, below=("mse",)), "0.9200 is not below mse"),
        (Gate("test_accuracy", 0.9, 0.95, above=("other:f1",)), "is not above other:f1"),
        (Gate("absent", 0, 1), "absent is not there"),
    ],
)
def test_a_gate_says_what_is_wrong(gate, wrong, monkeypatch):
    monkeypatch.setattr(results, "read", lambda name: {"metrics": {"f1": figure(0.1, 0.91)}})
    failures = gate.failures(OF_FOLDS)
    assert len(failures) == (1 if wrong else 0)
    assert not wrong or wrong in failures[0]


def test_a_table_shows_the_floors_in_every_metric(monkeypatch):
    monkeypatch.setattr(results, "read", lambda name: CONTENT)
    monkeypatch.setattr(results, "exists", lambda name: name != "missing")
    columns = [
        Column("accuracy %", "test_accuracy", 100, 1),
        Column("MSE", "mse", digits=3, bold=True),
        Column("seconds", "train_seconds", digits=0),
        Column("target", "epochs_to_target", absent="never"),
    ]
    drawn = table_of([Row("ours", "a"), Row("theirs", "missing")], columns, "network")
    assert drawn.splitlines() == [
        "| network | accuracy % | MSE | seconds | target |",
        "| --- | --- | --- | --- | --- |",
        "| floor: ridge | 31.0 |  |  |  |",
        "| floor: linear | 85.0 | 0.400 |  |  |",
        "| ours | 91.0 ± 1.4 (n = 2) | **0.250 ± 0.071 (n = 2)** | 12 ± 3 (n = 2) | never |",
        "",
        "Seconds on: abacus, 2 cores, 123 GFLOP/s in a float32 convolution that day.",
    ]
    turned = table_of([Row("ours", "a")], columns[:2], turned=True)
    assert turned.splitlines()[2] == "| accuracy % | 31.0 | 85.0 | 91.0 ± 1.4 (n = 2) |"


def test_beside_floors_prints_each_floor_below_the_result():
    metrics = {"mse": 0.25, "mae": 0.4, "floor_ridge": 0.3, "floor_ridge_mae": 0.5}
    lines = results.beside_floors(
        metrics, {"mse": "MSE", "mae": "MAE", "dice": "Dice"}
    ).splitlines()
    assert lines[0] == "|  | MSE | MAE |"
    assert lines[2:] == ["| network | 0.2500 | 0.4000 |", "| floor: ridge | 0.3000 | 0.5000 |"]


def test_summary_against_numpy():
    values = [0.1, 0.4, 0.35]
    summary = results.summary(values)
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["std"] == pytest.approx(np.std(values, ddof=1))
    assert results.summary([0.5])["std"] is None


# --- Reproduction --------------------------------------------------------------------------------

TRAIN = """
from dataclasses import dataclass

import labkit


@dataclass(frozen=True)
class Config:
    seed: int = 0
    data: labkit.DataChoice = "auto"
    resume: bool = False


def main(argv=None):
    config = labkit.parse(Config, argv)
    with labkit.start_run(__file__, config, "sample", f"net-adam-mse-s{config.seed}") as run:
        if not run.is_finished:
            run.log_metrics({"mse": 10 + config.seed, "floor_zero": 20, "train_seconds": 1})
    return run.metrics
"""
EXAMINE = """
from dataclasses import dataclass

import labkit


@dataclass(frozen=True)
class Config:
    run: str = "latest"
    data: labkit.DataChoice = "auto"


def main(argv=None):
    config = labkit.parse(Config, argv)
    trained = labkit.find_run("tp9_scratch.train", config.run)
    with labkit.examination(__file__, config, trained, "sample") as run:
        run.log_metrics({"seed_seen": trained.config["seed"]})
    return run.metrics
"""


def test_reproduce_runs_every_seed_and_examines_each_run(tmp_path, monkeypatch, home):
    (tmp_path / "tp9_scratch").mkdir()
    (tmp_path / "tp9_scratch" / "train.py").write_text(TRAIN)
    (tmp_path / "tp9_scratch" / "evaluate.py").write_text(EXAMINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    experiment = Experiment(
        "tp9_scratch.train", "tiny", seeds=(3, 5, 4), then="tp9_scratch.evaluate", data="sample"
    )
    reproduce.reproduce(experiment, experiment.seeds)
    content = results.read("tp9_scratch.train.tiny")
    assert content["seeds"] == [3, 5, 4]
    assert content["metrics"]["mse"]["values"] == [13, 15, 14]
    assert content["metrics"]["seed_seen"]["values"] == [3, 5, 4]
    assert content["floors"] == {"zero": 20}
    assert content["train_seconds"]["n"] == 3


def test_floors_of_each_seeds_own_data_are_kept_one_by_one():
    experiment = Experiment("tp9_scratch.train", seeds=(0, 1))
    runs = [{"eer": 0.1, "floor_hog": 0.2, "floor_chance": 0.1},
            {"eer": 0.3, "floor_hog": 0.4, "floor_chance": 0.1}]  # fmt: skip
    state = {"data_source": "sample", "config": {}, "machine": {}, "versions": {}, "commit": ""}
    content = reproduce.collect(experiment, runs, state)
    assert content["floors"] == {"hog": pytest.approx(0.3), "chance": 0.1}
    assert content["floor_values"] == {"hog": [0.2, 0.4]}


def test_what_lacks_its_data_does_not_keep_the_others_from_being_made(
    tmp_path, monkeypatch, home, capsys
):
    (tmp_path / "tp9_without").mkdir()
    (tmp_path / "tp9_without" / "train.py").write_text(TRAIN)
    (tmp_path / "tp9_without" / "download.py").write_text(
        "from labkit.arguments import fail\n\n\ndef main(argv):\n    fail('no such set')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(reproduce.machine, "commit", lambda: "abc")
    declared = (
        Experiment("tp9_without.download", "missing"),
        Experiment("tp9_without.train", "tiny", seeds=(3,), data="sample"),
    )
    monkeypatch.setattr(labs, "experiments", lambda: {"tp9": declared})
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--lab", "tp9"])
    said = capsys.readouterr().err
    assert "no such set" in said
    assert "not reproduced" in said
    assert "missing" in said.splitlines()[-1]
    assert "tiny" not in said.splitlines()[-1]
    assert results.read("tp9_without.train.tiny")["metrics"]["mse"]["values"] == [13]


def test_reproduce_lists_every_experiment_and_refuses_unknown_ones(capsys):
    reproduce.main(["--list"])
    listed = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(e.name)}\b", listed, re.MULTILINE) for e in EXPERIMENTS)
    lab = next(iter(labs.experiments()))
    for arguments, named in (
        (["--lab", "tp99"], "tp99"),
        ([], "nothing"),
        (["--lab", lab, "--only", "nonsense"], "nonsense"),
    ):
        with pytest.raises(SystemExit) as stop:
            reproduce.main(arguments)
        assert stop.value.code == 2
        assert named in capsys.readouterr().err


def test_experiments_have_names_and_files_of_their_own():
    for of_lab in labs.experiments().values():
        assert len({experiment.name for experiment in of_lab}) == len(of_lab)
    assert len(BY_FILE) == len(EXPERIMENTS)
    scripts = {script.name for script in labs.scripts()}
    for experiment in EXPERIMENTS:
        assert experiment.script in scripts
        assert not experiment.then or experiment.then in scripts


def test_every_origin_stands_in_the_data_table():
    readme = (ROOT / "README.md").read_text()
    origins = labs.origins()
    assert len(origins) >= 5
    for origin in origins:
        assert f"[{origin.name}]({origin.page})" in readme
        assert origin.licence
        assert origin.credit


# --- Pages ---------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every `python ...py` command line of the pages."""
    found = []
    for page in tables.pages():
        for block in re.findall(r"```(?:sh|powershell)\n(.*?)```", page.read_text(), re.DOTALL):
            found += re.findall(r"^python (\S+\.py[^#\n]*)", block, re.MULTILINE)
    return sorted(set(found))


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What `--help` of each script printed: it is asked once."""
    return {}


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_pages_exist(command: str, python, helps):
    script, *arguments = command.split()
    known = helps[script] = helps.get(script) or python(script, "--help").stdout
    assert known, f"{script} has no --help"
    for flag in re.findall(r"--[a-z-]+", " ".join(arguments)):
        assert re.search(rf"{flag}\b", known), f"{script} has no {flag}"


def test_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in tables.pages():
        named = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert {a or b for a, b in named} <= targets
