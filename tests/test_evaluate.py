"""The examination: statistics against independent versions; the same figures as in training."""

import math

import numpy as np
import pytest

import labkit
from labkit.results import accuracy_interval
from tp1_mnist_api import evaluate, train_model


@pytest.fixture
def guesses() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.2), 500)
    return probabilities, rng.integers(0, 10, 500)


def test_calibration_error_against_loops(guesses):
    probabilities, labels = guesses
    total = 0.0
    for number in range(15):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 < row.max() <= (number + 1) / 15
        ]
        if members:
            confidence = sum(member[0] for member in members) / len(members)
            accuracy = sum(member[1] for member in members) / len(members)
            total += len(members) / 500 * abs(confidence - accuracy)
    assert evaluate.expected_calibration_error(probabilities, labels) == pytest.approx(total)


def test_calibration_error_of_sure_and_right_is_zero():
    labels = np.arange(10)
    assert evaluate.expected_calibration_error(np.eye(10), labels) == 0
    assert evaluate.expected_calibration_error(np.eye(10), (labels + 1) % 10) == 1


@pytest.mark.parametrize(("correct", "total"), [(9790, 10000), (50, 100), (10, 10)])
def test_interval_against_wilsons_formula(correct, total):
    z, p = 1.959963984540054, correct / total
    centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    low, high = accuracy_interval(correct, total)
    assert low == pytest.approx(centre - half)
    assert high == pytest.approx(centre + half)


def test_distortions_move_what_they_say():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 10, 8] = 255
    rng = np.random.default_rng(0)
    shifted = evaluate.distort(image, "shift (pixels)", 3, rng)
    assert np.unravel_index(shifted.argmax(), shifted.shape) == (0, 10, 11)
    turned = evaluate.distort(image, "rotation (degrees)", 90, rng)
    assert turned.max() > 250
    noisy = evaluate.distort(image, "noise (standard deviation)", 0.2, rng)
    assert 0 <= noisy.min() <= noisy.max() <= 255
    for kind in evaluate.DISTORTIONS:
        np.testing.assert_allclose(evaluate.distort(image, kind, 0, rng), image, atol=1e-3)


def test_examination_repeats_the_trainings_figures(home, capsys):
    trained = train_model.main(["--model", "dense", "--epochs", "2", "--data", "sample"])
    identifier = labkit.find_run("tp1_mnist_api.train_model").state["run_id"]
    examined = evaluate.main(["--run", identifier[:8], "--data", "sample"])
    assert examined["test_accuracy"] == trained["test_accuracy"]
    assert examined["test_accuracy_low"] < trained["test_accuracy"] < examined["test_accuracy_high"]
    assert f"Test accuracy: {trained['test_accuracy']:.4f}" in capsys.readouterr().out
    folder = labkit.find_run("tp1_mnist_api.evaluate").folder
    plots = {path.stem for path in folder.glob("*.png")}
    assert plots == {"confusion_matrix", "most_confident_errors", "reliability", "robustness"}


def test_unknown_run_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--run", "nonsense", "--data", "sample"])
    assert stop.value.code == 2
    assert "nonsense" in capsys.readouterr().err
