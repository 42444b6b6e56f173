"""The examination: statistics against independent versions; the same figures as in training."""

import math
import shutil
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import labkit
from labkit import figures
from labkit.results import accuracy_interval
from tp1_mnist_api import digits, evaluate, train_model


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


def test_robustness_is_the_accuracy_at_each_strength():
    images = np.zeros((10, 28, 28), np.uint8)
    images[np.arange(10), 14, 4 + np.arange(10)] = 255  # the label says how far to the right

    def predict(distorted: np.ndarray) -> np.ndarray:
        return np.eye(28)[distorted.reshape(-1, 28, 28).sum(axis=1).argmax(axis=1) - 4]

    curves = evaluate.robustness(predict, labkit.Part(images, np.arange(10)), 0)
    assert curves["shift (pixels)"] == [1, 0, 0, 0, 0, 0, 0]
    assert curves["rotation (degrees)"][0] == curves["noise (standard deviation)"][0] == 1
    assert curves.keys() == evaluate.DISTORTIONS.keys()


def test_evenly_spaced_images_keep_their_labels():
    part = labkit.Part(np.arange(10), np.arange(10))
    assert evaluate.evenly_spaced(part, 5).x.tolist() == [0, 2, 4, 6, 8]
    assert evaluate.evenly_spaced(part, 5).y.tolist() == [0, 2, 4, 6, 8]
    assert len(evaluate.evenly_spaced(part, 2000)) == 10


@pytest.fixture(scope="module")
def examined(tmp_path_factory, empty_store):
    """A training and its examination: metrics of both, the counts that were drawn, the folders."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, folder / "mlflow.db")
    counts, draw = [], figures.confusion_matrix
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setenv("LABKIT_HOME", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(figures, "confusion_matrix", lambda c, n: counts.append(c) or draw(c, n))
        trained = train_model.main(["--model", "dense", "--smoke", "--data", "sample"])
        training = labkit.find_run(evaluate.EXAMINES)
        found = evaluate.main(["--run", training.state["run_id"][:8], "--data", "sample"])
        return SimpleNamespace(
            trained=trained, training=training, found=found, counts=counts[0],
            run=labkit.find_run("tp1_mnist_api.evaluate"), printed=printed.getvalue(),
        )  # fmt: skip


def test_it_repeats_the_trainings_figures_and_shows_them(examined):
    found, accuracy = examined.found, examined.trained["test_accuracy"]
    assert found["test_accuracy"] == accuracy
    assert found["test_loss"] == pytest.approx(examined.trained["test_loss"], rel=1e-6)
    assert found["test_accuracy_low"] < accuracy < found["test_accuracy_high"]
    report = (examined.run.folder / "report.md").read_text()
    for text in (report, examined.printed):
        assert "| network | " + f"{accuracy:.4f} | {found['test_accuracy_low']:.4f}" in text
        assert f"| floor: nearest neighbours | {found['floor_nearest_neighbours']:.4f}" in text
        assert f"- shift (pixels): 0: {accuracy:.3f}, " in text
        assert "precision    recall" in text
    plots = {path.stem for path in examined.run.folder.glob("*.png")}
    assert plots == {"confusion_matrix", "most_confident_errors", "reliability", "robustness"}


def test_the_confusion_matrix_has_a_row_for_each_true_digit(examined):
    test = digits.load("sample", True, "last").test
    model = keras.saving.load_model(examined.training.folder / "model.keras")
    expected = np.zeros((10, 10), int)
    for image, label in zip(test.x, test.y, strict=True):
        expected[label][int(np.argmax(model(digits.to_input(image[None]))))] += 1
    assert not np.array_equal(expected, expected.T)
    np.testing.assert_array_equal(examined.counts, expected)


def test_the_worst_errors_come_first():
    test = labkit.Part(np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 2, 3]))
    right = np.eye(10)[[0, 1, 2, 3]]
    assert evaluate.errors_figure(test, right) is None
    wrong = right.copy()
    wrong[1], wrong[3] = np.eye(10)[7] * 0.6 + 0.04, np.eye(10)[8]
    figure = evaluate.errors_figure(test, wrong)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["3 taken for 8\n100% sure, #3", "1 taken for 7\n64% sure, #1"]


def test_nearest_neighbours_against_loops():
    data = digits.load("sample", True, "last")
    known = np.concatenate([data.train.x, data.validation.x]).reshape(-1, 784).astype(float)
    labels = np.concatenate([data.train.y, data.validation.y])
    right = 0
    for image, label in zip(data.test.x.reshape(-1, 784).astype(float), data.test.y, strict=True):
        nearest = labels[np.argsort(((known - image) ** 2).sum(axis=1), kind="stable")[:3]]
        right += np.bincount(nearest).argmax() == label
    assert evaluate.nearest_neighbours(data) == pytest.approx(right / len(data.test), abs=0.01)
