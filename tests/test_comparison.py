"""TP2's foundation: sealed test images, choices without them, statistics, resumed comparisons."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from scipy import stats

import labkit
from labkit import tracking
from tests.conftest import ROOT
from tp2_improvement import comparison, evaluate, evidence
from tp2_improvement import tp2_ex3_optimizers as optimizers
from tp2_improvement.comparison import SealedTestError, Settings, choose, common, load_split

CHOOSING = optimizers.OptimizerTrial(
    configuration="adam", optimizer="adam", learning_rate=0.001, purpose="choose", seed=0,
    **common(Settings(epochs=1, data="sample", smoke=True)),
)  # fmt: skip


def test_who_chooses_cannot_open_the_test_images():
    split = load_split(CHOOSING)
    with pytest.raises(SealedTestError, match="sealed"):
        split.open_test()
    held = [value for value in vars(split).values() if isinstance(value, np.ndarray)]
    assert sorted(len(array) for array in held) == [52, 52, 460, 460]  # no test array in reach


def test_who_reports_opens_them_once():
    split = load_split(replace(CHOOSING, purpose="report"))
    x_test, y_test = split.open_test()
    assert len(x_test) == len(y_test) == 256
    with pytest.raises(SealedTestError):
        split.open_test()


def test_choosing_refuses_outcomes_that_know_a_test_accuracy():
    outcome = {"trial": {"configuration": "a"}, "metrics": {"validation_accuracy": 0.9}}
    assert choose([outcome]) == {"a": {"configuration": "a"}}
    outcome["metrics"]["test_accuracy"] = 0.9
    with pytest.raises(ValueError, match="must not see"):
        choose([outcome])


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Iterator[labkit.Run]:
    """One finished comparison, for all tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(tmp_path_factory.mktemp("compared")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("LABKIT_DATA", raising=False)
        optimizers.main(["--smoke", "--data", "sample"])
        yield labkit.find_run("tp2_improvement.tp2_ex3_optimizers")


@pytest.fixture
def its_home(compared, home, monkeypatch) -> Path:
    """The finished comparison's home, for this test."""
    folder = compared.folder.parents[2]
    monkeypatch.setenv("LABKIT_HOME", str(folder))
    return folder


def content(run: labkit.Run) -> dict:
    return json.loads((run.folder / "comparison.json").read_text())


def configurations(run: labkit.Run) -> set[str]:
    return {name.partition("/")[0] for name in content(run)["series"]}


@pytest.mark.slow
def test_choices_are_the_same_whatever_the_test_images_are(compared, monkeypatch):
    """Poisoned test labels change what is reported and nothing that was chosen."""
    load = comparison.load_images

    def poisoned(data: str, smoke: bool) -> labkit.Images:
        images = load(data, smoke)
        return replace(images, y_test=(images.y_test + 1) % 10)

    monkeypatch.setattr(comparison, "load_images", poisoned)
    comparison._arrays.cache_clear()
    optimizers.main(["--smoke", "--data", "sample"])
    comparison._arrays.cache_clear()
    honest = content(compared)
    other = content(labkit.find_run("tp2_improvement.tp2_ex3_optimizers"))
    for name in ("chosen_learning_rates", "sweep"):
        assert honest["details"][name] == other["details"][name]
    validation, test = "adam_0.001/validation_accuracy", "adam_0.001/test_accuracy"
    assert honest["series"][validation] == other["series"][validation]
    assert np.mean(honest["series"][test]) > np.mean(other["series"][test])


def test_a_comparison_is_one_parent_with_its_children_and_a_report(compared, its_home):
    assert {"report.md", "ranking.png", "curves.png", "learning_rates.png"} <= {
        path.name for path in compared.folder.iterdir()
    }
    tracking.open_store("tp2_improvement")
    query = f"tags.mlflow.parentRunId = '{compared.state['run_id']}'"
    children = mlflow.search_runs(filter_string=query)
    # Two rates each of two optimizers, then two seeds of each configuration.
    assert len(children) == 2 * 2 + 2 * len(configurations(compared))
    assert set(children["status"]) == {"FINISHED"}
    names = set(children["tags.mlflow.runName"])
    assert {"Optimizer_Comparison_Adam", "Optimizer_Comparison_SGD_with_momentum"} <= names
    chose = children[children["params.purpose"] == "choose"]
    assert chose["metrics.test_accuracy"].isna().all()
    assert children[children["params.purpose"] == "report"]["metrics.test_accuracy"].notna().all()
    curve = mlflow.MlflowClient().get_metric_history(children["run_id"][0], "validation_accuracy")
    assert {point.step for point in curve} == {0}
    assert mlflow.active_run() is None


def test_evaluate_finds_the_same_test_accuracies(compared, its_home):
    metrics = evaluate.main(["--comparison", "optimizers", "--smoke", "--data", "sample"])
    series = content(compared)["series"]
    assert set(metrics) == {name for name in series if name.endswith("/test_accuracy")}
    for name, accuracy in metrics.items():
        assert accuracy == series[name][0]


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_without_repeating_what_is_finished(home):
    script = str(ROOT / "tp2_improvement" / "tp2_ex3_optimizers.py")
    command = [sys.executable, script, "--smoke", "--data", "sample"]
    trials = home / "outputs" / "tp2_improvement.tp2_ex3_optimizers.trial"

    def states() -> dict[str, tuple[str, str]]:
        found = {
            path.parent.name: json.loads(path.read_text()) for path in trials.glob("*/state.json")
        }
        return {name: (state["status"], state["run_id"]) for name, state in found.items()}

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while sum(status == "FINISHED" for status, _ in states().values()) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # Python may lose one in a destructor
            output, _ = process.communicate(timeout=25)
            break
    assert process.returncode == 130, output
    assert "Interrupted" in output
    ignored = r"Exception ignored in.*?KeyboardInterrupt: *\n"  # printed by Python's destructors
    assert "Traceback" not in re.sub(ignored, "", output, flags=re.DOTALL)
    before = {name: state for name, state in states().items() if state[0] == "FINISHED"}
    assert len(before) >= 3

    process = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    after = states()
    assert before.items() <= after.items()  # same folders, same tracked runs
    found = labkit.find_run("tp2_improvement.tp2_ex3_optimizers")
    assert [status for status, _ in after.values()] == ["FINISHED"] * len(after)
    assert len(after) == 2 * 2 + 2 * len(configurations(found))
    assert len(list((home / "outputs" / "tp2_improvement.tp2_ex3_optimizers").iterdir())) == 1


@pytest.mark.parametrize("flag", [["--seeds", "1"], ["--epochs", "0"], ["--seed", "-1"]])
def test_impossible_settings_are_one_error(flag, python):
    finished = python("tp2_improvement/tp2_ex2_regularization.py", *flag)
    assert finished.returncode == 2
    assert f"{flag[0]} must be" in finished.stderr
    assert flag[1] in finished.stderr
    assert "Traceback" not in finished.stderr


def test_watch_evaluates_without_dropout_and_without_penalty(tmp_path):
    labkit.prepare(0)
    split = load_split(CHOOSING)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(
                32, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1)
            ),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    run = labkit.Run(tmp_path, {"metrics": {}, "status": "RUNNING"})
    model.fit(
        split.x_train, split.y_train, epochs=2, verbose=0,
        callbacks=[comparison.watch(run, model, split)],
    )  # fmt: skip
    probabilities = np.asarray(model(split.x_validation, training=False), dtype=np.float64)
    likelihood = probabilities[np.arange(len(split.y_validation)), split.y_validation]
    accuracy = np.mean(probabilities.argmax(axis=1) == split.y_validation)
    assert run.history["validation_cross_entropy"][-1] == pytest.approx(
        -np.log(likelihood).mean(), rel=1e-4
    )
    assert run.history["validation_accuracy"][-1] == pytest.approx(accuracy)
    with_penalty = model.evaluate(split.x_validation, split.y_validation, verbose=0)[0]
    assert with_penalty > run.history["validation_cross_entropy"][-1] + 0.1
    assert all(a < b for a, b in pairwise(run.history["seconds"]))


# --- Statistics ------------------------------------------------------------------------------


def test_holm_against_a_worked_example():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; then never falling.
    assert evidence.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert evidence.holm([0.6, 0.7]) == [1, 1]


def test_paired_comparison_against_the_formula():
    a, b = [0.981, 0.983, 0.979, 0.984], [0.979, 0.980, 0.978, 0.980]
    (pair,) = evidence.compare_pairs({"a": a, "b": b})
    differences = np.subtract(a, b)
    error = differences.std(ddof=1) / 2
    t = differences.mean() / error
    assert pair.difference == pytest.approx(differences.mean())
    assert pair.p == pytest.approx(2 * stats.t.sf(t, 3))
    reach = 3.182446305284263 * error  # the table's 97.5 % point of t with 3 degrees of freedom
    assert (pair.low, pair.high) == pytest.approx(
        (differences.mean() - reach, differences.mean() + reach)
    )


def test_equal_samples_cannot_be_told_apart_and_a_base_limits_the_pairs():
    samples = {"a": [0.9, 0.9], "b": [0.9, 0.9], "c": [0.8, 0.8]}
    pairs = evidence.compare_pairs(samples)
    assert [pair.distinguishable for pair in pairs] == [False, True, True]
    assert [(pair.first, pair.second) for pair in evidence.compare_pairs(samples, "a")] == [
        ("b", "a"),
        ("c", "a"),
    ]


def test_false_alarms_over_many_pairs_stay_near_five_percent():
    """Under the null hypothesis, some pair of 15 is told apart in at most about 5 % of cases."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        samples = {name: rng.normal(0.98, 0.001, 5).tolist() for name in "abcdef"}
        alarms += any(pair.distinguishable for pair in evidence.compare_pairs(samples))
    assert alarms <= 20


def test_mean_interval_against_scipy_and_with_equal_values():
    sample = [0.97, 0.98, 0.99]
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert evidence.mean_interval(sample) == pytest.approx((expected.low, expected.high))
    assert evidence.mean_interval([0.5, 0.5]) == (0.5, 0.5)


def test_groups_join_neighbours_that_cannot_be_told_apart():
    noise = np.array([-0.001, 0.0015, -0.0005, 0.001, -0.001])
    samples = {
        "worst": (0.90 + noise).tolist(),
        "second": (0.98 - noise).tolist(),
        "first": (0.9801 + 2 * noise).tolist(),
    }
    assert evidence.indistinguishable_groups(samples) == [["first", "second"]]
    assert evidence.indistinguishable_groups({"a": [1, 1], "b": [0.5, 0.5]}) == []


def test_environment_threads_are_fixed(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    labkit.fan_out(str, [1], "off")
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "2"
