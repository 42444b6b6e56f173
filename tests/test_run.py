"""Runs that are killed, interrupted, resumed, or out of disk."""

import json
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

import labkit
from labkit import tracking
from tests.conftest import ROOT

TRAIN = "tp1_mnist_api.train_model"
TRAINING = """
import os
import time
from dataclasses import dataclass

import keras
import numpy as np

import labkit
from labkit.batches import Batches


@dataclass(frozen=True)
class Config:
    epochs: int = 6
    resume: bool = False


def noisy(x, y, rng):
    return x + rng.normal(0, 0.1, x.shape).astype("float32"), y


def main(argv=None):
    config = labkit.parse(Config, argv)
    with labkit.start_run(__file__, config, "sample", "net-adamw-mse-s0") as run:
        labkit.prepare(0)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, 64, 3)).astype("float32")
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization(),
             keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        )
        rate = keras.optimizers.schedules.CosineDecay(
            0.001, 18, warmup_target=0.05, warmup_steps=6  # its peak lies behind the interruption
        )
        model.compile(keras.optimizers.AdamW(rate), "mse", jit_compile=False)
        pause = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: time.sleep(float(os.environ.get("PAUSE", "0")))
        )
        model.fit(
            Batches(x, y, 16, 0, run.first_epoch, noisy), validation_data=(x, y),
            epochs=config.epochs, initial_epoch=run.first_epoch, shuffle=False, verbose=0,
            callbacks=[run.keeps_best("val_loss", "min"), run.checkpoints(model), pause],
        )
        model.load_weights(run.best_file)
        run.log_metrics({"mse": model.evaluate(x, y, verbose=0)})
        model.save(run.folder / "model.keras")
    return run.metrics


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path) -> Path:
    """A small training with everything that a resume must restore."""
    path = tmp_path / "tp9_scratch" / "train.py"
    path.parent.mkdir()
    path.write_text(TRAINING)
    return path


@dataclass(frozen=True)
class Config:
    """Settings of a run in these tests."""

    epochs: int = 3
    resume: bool = False


def start_training(script: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PAUSE": "0.5"},
        # Whoever starts the tests in the background may have told their children to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoint(home: Path, process: subprocess.Popen) -> Path:
    for _ in range(2400):
        found = list((home / "outputs" / "tp9_scratch.train").glob("*/checkpoint.npz"))
        if found:
            return found[0].parent
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("no checkpoint after 120 s")


def finished_state(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())


def test_killed_and_resumed_equals_uninterrupted(home, tmp_path, monkeypatch, script, capsys):
    process = start_training(script)
    folder = wait_for_checkpoint(home, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert finished_state(folder)["status"] == "RUNNING"

    train = runpy.run_path(str(script))["main"]
    train(["--resume"])
    assert "resumed after epoch" in capsys.readouterr().out
    resumed = finished_state(folder)
    assert len(list((home / "outputs" / "tp9_scratch.train").glob("*/state.json"))) == 1
    tracking.open_store("tp9_scratch")
    runs = mlflow.search_runs()
    assert list(runs["status"]) == ["FINISHED"]
    curve = mlflow.MlflowClient().get_metric_history(runs["run_id"][0], "val_loss")
    assert [point.step for point in curve] == list(range(6))  # none lost, none twice

    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    train([])
    (whole_folder,) = (tmp_path / "other" / "outputs" / "tp9_scratch.train").iterdir()
    whole = finished_state(whole_folder)
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["history"] == whole["history"]
    first, second = (
        keras.saving.load_model(path / "model.keras").get_weights()
        for path in (folder, whole_folder)
    )
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


def test_interrupt_keeps_partial_results_and_marks_the_run_killed(home, script):
    process = start_training(script, "--epochs", "1000")
    folder = wait_for_checkpoint(home, process)
    for _ in range(60):
        if finished_state(folder)["status"] == "RUNNING":  # Python may lose one in a destructor
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            output, _ = process.communicate(timeout=2)
            break
    else:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted" in output
    ignored = r"Exception ignored in.*?KeyboardInterrupt: *\n"  # printed by Python's destructors
    assert "Traceback" not in re.sub(ignored, "", output, flags=re.DOTALL)
    assert finished_state(folder)["status"] == "KILLED"
    assert (folder / "checkpoint.npz").exists()
    tracking.open_store("tp9_scratch")
    assert list(mlflow.search_runs()["status"]) == ["KILLED"]


def test_the_best_weights_are_those_of_all_parts_and_go_when_the_run_is_finished(home):
    x, y = np.ones((8, 1), np.float32), np.zeros(8, np.float32)

    def train(run: labkit.Run, epochs: int) -> keras.Model:
        """A single weight that moves from 1 through 0 to -1 in steps of 1/2."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.ones((1, 1), np.float32)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        move = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: model.set_weights([np.full((1, 1), 1 - epoch / 2)])
        )
        callbacks = [move, run.keeps_best("val_loss", "min"), run.checkpoints(model)]
        model.fit(
            x, y, epochs=epochs, initial_epoch=run.first_epoch, validation_data=(x, y),
            callbacks=callbacks, verbose=0,
        )  # fmt: skip
        return model

    with suppress(SystemExit), labkit.start_run(__file__, Config(), "real", "a-b-c") as run:
        train(run, 3)  # the last epoch is the best one, with the weight at 0
        raise KeyboardInterrupt
    assert run.best_file.exists()
    with labkit.start_run(__file__, Config(resume=True), "real", "a-b-c") as again:
        assert again.folder == run.folder
        model = train(again, 5)
        model.load_weights(again.best_file)
        assert model.get_weights()[0].item() == 0
        assert again.best_file.exists()
    assert not again.best_file.exists()
    tracking.open_store(Path(__file__).parent.name)
    kept = mlflow.MlflowClient().list_artifacts(again.state["run_id"])
    assert not [file.path for file in kept if "weights" in file.path]


def test_a_part_without_checkpoint_begins_anew_and_prints_nothing(home, capsys):
    def train(stop: bool) -> labkit.Run:
        settings = (__file__, Config(resume=True), "sample", "net-adam-mse-s0")
        with labkit.start_run(*settings, part="trial") as run:
            assert run.first_epoch == 0
            for epoch in range(3):
                run.log_epoch(epoch, {"loss": 1.0 - epoch / 10})
                if stop:
                    raise KeyboardInterrupt
        return run

    with pytest.raises(KeyboardInterrupt):  # handed on to the comparison's own run
        train(stop=True)
    run = train(stop=False)
    assert run.history == {"loss": [1.0, 0.9, 0.8]}
    assert labkit.find_run("tests.test_run.trial").history == run.history
    assert run.mlflow_id == ""  # tracked only where a parent is
    assert capsys.readouterr().out == ""


def test_error_marks_the_run_failed(home):
    with (
        pytest.raises(ZeroDivisionError),
        labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0"),
    ):
        raise ZeroDivisionError
    assert list(mlflow.search_runs()["status"]) == ["FAILED"]


def test_finished_run_is_not_repeated_and_other_settings_are(home):
    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        run.log_metrics({"mse": 0.5})
    with labkit.start_run(__file__, Config(resume=True), "sample", "net-adam-mse-s0") as again:
        assert again.is_finished
        assert again.metrics == {"mse": 0.5}
    with labkit.start_run(__file__, Config(4, True), "sample", "net-adam-mse-s0") as other:
        assert not other.is_finished
    with labkit.start_run(__file__, Config(resume=True), "real:0", "net-adam-mse-s0") as other:
        assert not other.is_finished


def test_a_run_in_progress_is_not_resumed_by_a_second_process(home):
    with (
        labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as first,
        labkit.start_run(__file__, Config(resume=True), "sample", "net-adam-mse-s0") as second,
    ):
        assert first.folder != second.folder


def test_full_disk_keeps_the_checkpoint_before(home, capsys):
    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        run.record_epoch(0, {"loss": 1.0}, [np.zeros(1000)])
        before = run.checkpoint.file.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        run.mirror.active = False  # only the checkpoint is to hit the limit
        try:
            run.record_epoch(1, {"loss": 0.5}, [np.zeros(100_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "epoch 2 is not saved" in capsys.readouterr().err
        assert run.checkpoint.file.read_bytes() == before
        assert not list(run.folder.glob("*.part*"))


@pytest.mark.parametrize(
    "name", ["cnn", "cnn-adam", "CNN-adam-mse", "a-b-c-d-s0", "cnn-adam-mse-s"]
)
def test_run_name_convention(name):
    with (
        pytest.raises(ValueError, match="architecture"),
        labkit.start_run(__file__, Config(), "sample", name),
    ):
        pass


def test_find_run_without_runs_says_what_to_do(capsys):
    with pytest.raises(SystemExit) as stop:
        labkit.find_run(TRAIN)
    assert stop.value.code == 2
    assert "python tp1_mnist_api/train_model.py" in capsys.readouterr().err


def test_nothing_is_written_into_the_checkout(home):
    before = set(os.listdir(ROOT))
    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        run.save_text("report.md", "result")
    assert set(os.listdir(ROOT)) == before
    assert run.folder.is_relative_to(home)


def test_the_latest_run_is_the_one_written_last_whatever_its_files_say(home):
    folders = []
    for lines in (1, 2):
        with labkit.start_run(__file__, Config(lines), "sample", "net-adam-mse-s0") as run:
            folders.append(run.folder)
    os.utime(folders[0] / "state.json")  # as copying or unpacking a folder does
    assert labkit.find_run("tests.test_run").folder == folders[1]


@pytest.mark.parametrize("content", [b"", b'{"status": "FINI', b"[]", b'{"status": "FINISHED"}'])
def test_a_damaged_state_is_named_and_skipped(home, capsys, content):
    folders = []
    for _ in range(2):
        with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
            folders.append(run.folder)
    (folders[1] / "state.json").write_bytes(content)
    assert labkit.find_run("tests.test_run").folder == folders[0]
    assert f"{folders[1]}/state.json is damaged and skipped" in capsys.readouterr().err
    resumed = Config(resume=True)
    with labkit.start_run(__file__, resumed, "sample", "net-adam-mse-s0") as run:
        assert run.folder == folders[0]


def test_a_truncated_checkpoint_is_named_and_skipped(home, capsys):
    def interrupted(epochs: int) -> Path:
        with (
            suppress(SystemExit),
            labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run,
        ):
            for epoch in range(epochs):
                run.record_epoch(epoch, {"loss": 1.0}, [np.zeros(50)])
            raise KeyboardInterrupt
        return run.folder

    good, bad = interrupted(1), interrupted(2)
    file = bad / "checkpoint.npz"
    file.write_bytes(file.read_bytes()[:200])
    for expected in (good, None):
        with labkit.start_run(
            __file__, Config(resume=True), "sample", "net-adam-mse-s0"
        ) as resumed:
            assert f"{bad} is damaged and skipped" in capsys.readouterr().err
            assert resumed.folder == (expected or resumed.folder) != bad
            assert resumed.first_epoch == (1 if expected else 0)
        shutil.rmtree(resumed.folder)  # the second time, nothing good is left


def test_what_is_not_a_number_is_an_error_and_the_run_failed(home, capsys):
    opened = []

    def diverging_training() -> None:
        with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
            opened.append(run)
            run.log_metrics({"mse": 0.5})
            run.log_metrics({"dice": float("nan"), "iou": 0.1})

    with pytest.raises(SystemExit, match="2"):
        diverging_training()
    assert "not a number: dice." in capsys.readouterr().err
    assert finished_state(opened[0].folder)["status"] == "FAILED"
    assert opened[0].metrics == {"mse": 0.5}
