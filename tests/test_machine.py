"""What `labkit.prepare` sets beside the seed, and the commit that a run is known by."""

import subprocess

import tensorflow as tf

import labkit
from labkit import machine


def test_input_pipelines_are_not_tuned_and_give_the_same():
    labkit.prepare(0)
    labkit.prepare(0)  # twice is as once
    dataset = tf.data.Dataset.range(5).batch(2)
    iterator = iter(dataset)
    assert iterator._dataset.options().autotune.enabled is False
    assert [batch.numpy().tolist() for batch in iterator] == [[0, 1], [2, 3], [4]]


def test_a_commit_is_dirty_by_its_code_not_by_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"
    (tmp_path / "results").mkdir()
    code, result = tmp_path / "script.py", tmp_path / "results" / "script.json"
    code.write_text("1")
    result.write_text("1")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init",), ("add", "."), (*author, "commit", "--message", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    clean = machine.commit()
    assert len(clean) >= 7
    result.write_text("2")
    assert machine.commit() == clean
    code.write_text("2")
    assert machine.commit() == f"{clean}-dirty"


def test_the_days_speed_is_measured_once_and_told_from_then_on(monkeypatch):
    machine.measure_speed.cache_clear()
    try:
        assert "gflops" not in machine.describe()
        speed = machine.measure_speed()
        assert 1 < speed["gflops"] < 1e6
        assert speed["gflops_precision"] == machine.fast_precision()
        assert machine.measure_speed() is speed
        assert machine.describe().items() >= speed.items()
    finally:
        machine.measure_speed.cache_clear()
