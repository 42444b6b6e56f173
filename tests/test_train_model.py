"""TP1's training: the hand-out's numbers, models that learn, the champion, an exact export."""

import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import keras
import mlflow
import numpy as np
import pytest
from filelock import FileLock

import labkit
from labkit import tracking
from tp1_mnist_api import registry, train_model
from tp1_mnist_api.app import Model
from tp1_mnist_api.digits import floors, load, to_input, validation_indices
from tp1_mnist_api.export import export_for_serving, sha256_of
from tp1_mnist_api.models import BUILDERS, average_over_shifts
from tp1_mnist_api.registry import beats
from tp1_mnist_api.serving.model_file import LAB
from tp1_mnist_api.train_model import RECIPES


@pytest.fixture
def few() -> tuple[np.ndarray, np.ndarray]:
    data = labkit.load_mnist("sample")
    return to_input(data.x_train[:32]), data.y_train[:32]


def test_dense_is_the_handouts_network_and_recipe():
    labkit.prepare(0)
    assert BUILDERS["dense"](0.2).count_params() == 407_050
    assert RECIPES["dense"].epochs == 5
    assert RECIPES["dense"].batch_size == 128
    assert RECIPES["dense"].dropout_rate == 0.2
    assert RECIPES["dense"].peak_learning_rate is None
    assert RECIPES["dense"].shift is None


def test_dense_strong_has_no_convolution():
    labkit.prepare(0)
    kinds = {type(layer).__name__ for layer in BUILDERS["dense-strong"](0.1).layers}
    assert not any("Conv" in kind for kind in kinds)


@pytest.mark.parametrize("name", BUILDERS)
def test_each_model_can_learn_32_images_by_heart_and_be_exported(name, few, tmp_path):
    labkit.prepare(0)
    x, y = few
    model = BUILDERS[name](RECIPES[name].dropout_rate)
    assert model.input_shape == (None, 784)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=40, batch_size=16, verbose=0)
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(predicted.argmax(axis=1) == y) == 1
    assert export_for_serving(model, tmp_path / "mnist.tflite", x) <= 1e-5


def test_averaging_is_the_mean_over_five_shifted_images(few):
    labkit.prepare(0)
    x, _ = few
    model = BUILDERS["dense"](0.2)
    images = np.pad(x.reshape(-1, 28, 28), ((0, 0), (1, 1), (1, 1)))
    shifts = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    expected = np.mean(
        [
            model.predict(images[:, top : top + 28, left : left + 28].reshape(-1, 784), verbose=0)
            for top, left in shifts
        ],
        axis=0,
    )
    averaged = average_over_shifts(model).predict(x, verbose=0)
    np.testing.assert_allclose(averaged, expected, atol=1e-6)


def test_last_split_is_keras_validation_split():
    training, validation = validation_indices(np.zeros(60000), "last")
    assert (len(training), len(validation)) == (54000, 6000)
    assert validation[0] == 54000


def test_stratified_split_is_fixed_disjoint_and_proportional():
    labels = np.repeat(np.arange(10), 100)
    training, validation = validation_indices(labels, "stratified")
    again = validation_indices(labels, "stratified")
    np.testing.assert_array_equal(validation, again[1])
    assert not set(training) & set(validation)
    assert len(training) + len(validation) == 1000
    assert np.bincount(labels[validation]).tolist() == [10] * 10


@pytest.mark.parametrize("split", ["last", "stratified"])
def test_the_parts_hold_every_image_once(split):
    images, data = labkit.load_mnist("sample"), load("sample", False, split)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    together = np.concatenate([data.train.x, data.validation.x]).reshape(1437, -1)
    labels = np.concatenate([data.train.y, data.validation.y])
    rows = sorted(map(tuple, np.column_stack([together, labels])))
    assert rows == sorted(map(tuple, np.column_stack([images.x_train.reshape(1437, -1),
                                                      images.y_train])))  # fmt: skip
    np.testing.assert_array_equal(data.test.x, images.x_test)
    np.testing.assert_array_equal(data.test.y, images.y_test)


def test_floors_know_training_images_alone():
    zeros, ones = np.zeros((4, 28, 28), np.uint8), np.full((4, 28, 28), 255, np.uint8)
    train = labkit.Part(np.concatenate([zeros, ones[:3]]), np.array([0] * 4 + [1] * 3))
    validation = labkit.Part(ones, np.full(4, 1))  # with these 1 would be the most frequent one
    test = labkit.Part(np.concatenate([zeros[:1], ones]), np.array([0, 1, 1, 1, 0]))
    assert floors(labkit.Data("sample", train, validation, test)) == {
        "floor_majority": 0.4,
        "floor_logistic_regression": 0.8,
    }


@pytest.mark.realdata
def test_the_real_parts(real_data):
    data = load("real", False, "last")
    assert (len(data.train), len(data.validation), len(data.test)) == (54000, 6000, 10000)
    assert np.mean(data.test.y == np.bincount(data.train.y).argmax()) == 0.1135


REAL, SAMPLE = "real:06b0d1f1 stratified 6000", "sample stratified 144"


@pytest.mark.parametrize(
    ("challenger", "champion", "wins"),
    [
        ((REAL, "0.99"), (REAL, "0.98"), True),
        ((REAL, "0.98"), (REAL, "0.98"), False),
        ((REAL, "0.97"), (REAL, "0.98"), False),
        ((REAL, "0.90"), (SAMPLE, "0.99"), True),  # the first that saw real data
        ((SAMPLE, "0.99"), (REAL, "0.90"), False),
        (("real:06b0d1f1 last 6000", "0.99"), (REAL, "0.90"), False),  # other images
    ],
)
def test_champion_changes_only_for_a_better_model_on_the_same_images(challenger, champion, wins):
    keys = ("validation_set", "validation_accuracy")
    tags = [dict(zip(keys, values, strict=True)) for values in (challenger, champion)]
    assert beats(*tags) is wins


@dataclass
class Trained:
    """A whole training, and what `fit()` was given and left."""

    home: Path
    metrics: dict[str, float]
    run: labkit.Run
    batches: list[tuple[np.ndarray, np.ndarray]]
    validation: tuple[np.ndarray, np.ndarray]
    weights: list[np.ndarray]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_store) -> Trained:
    seen, fit = [], keras.Model.fit

    def watched(model, x, **settings):
        seen.append(([x[index] for index in range(len(x))], settings["validation_data"]))
        history = fit(model, x, **settings)
        seen.append(model.get_weights())
        return history

    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(keras.Model, "fit", watched)
        metrics = train_model.main(["--model", "dense", "--epochs", "2", "--data", "sample"])
        run = labkit.find_run("tp1_mnist_api.train_model")
    (batches, validation), weights = seen
    return Trained(folder, metrics, run, batches, validation, weights)


@pytest.fixture
def store(trained, monkeypatch) -> mlflow.MlflowClient:
    """The training's tracking store."""
    monkeypatch.setenv("LABKIT_HOME", str(trained.home))
    tracking.open_store("tp1_mnist_api")
    return mlflow.MlflowClient()


def test_it_is_fitted_to_training_images_alone(trained):
    images = labkit.load_mnist("sample")
    x, y = (np.concatenate(arrays) for arrays in zip(*trained.batches, strict=True))
    known = np.column_stack([to_input(images.x_train), images.y_train])
    assert sorted(map(tuple, np.column_stack([x, y]))) == sorted(map(tuple, known[:1293]))
    np.testing.assert_array_equal(trained.validation[0], to_input(images.x_train[1293:]))
    np.testing.assert_array_equal(trained.validation[1], images.y_train[1293:])


@pytest.fixture
def model(trained) -> keras.Model:
    return keras.saving.load_model(trained.run.folder / "model.keras")


def test_each_figure_is_measured_on_its_own_images(trained, model):
    images = labkit.load_mnist("sample")
    for part, x, y in (
        ("train", images.x_train[:1293], images.y_train[:1293]),
        ("validation", images.x_train[1293:], images.y_train[1293:]),
        ("test", images.x_test, images.y_test),
    ):
        probabilities = model.predict(x.reshape(-1, 784) / np.float32(255), verbose=0)
        loss = -np.mean(np.log(probabilities[np.arange(len(y)), y]))
        assert trained.metrics[f"{part}_loss"] == pytest.approx(loss, rel=1e-4)
        right = np.mean(probabilities.argmax(axis=1) == y)
        assert trained.metrics[f"{part}_accuracy"] == pytest.approx(right, abs=1e-6)
    assert trained.metrics["test_accuracy"] > trained.metrics["floor_majority"]


def test_what_is_saved_registered_and_served_is_the_trained_model(trained, model, store):
    for saved, fitted in zip(model.get_weights(), trained.weights, strict=True):
        np.testing.assert_array_equal(saved, fitted)
    images = to_input(labkit.load_mnist("sample").x_test)
    expected = model.predict(images, verbose=0)
    champion = trained.home / "outputs" / "champion" / "mnist.tflite"
    for path in (trained.run.folder / "mnist.tflite", champion):
        np.testing.assert_allclose(Model(path).predict(images), expected, atol=1e-5)
    registered = mlflow.pyfunc.load_model("models:/mnist@champion")
    assert registered.metadata.signature.inputs.input_types()[0] == np.float32
    np.testing.assert_allclose(registered.predict(images), expected, atol=1e-6)


def test_the_training_is_tracked_and_its_export_described(trained, store):
    logged = store.get_run(trained.run.state["run_id"])
    assert logged.data.params["epochs"] == "2"
    assert logged.data.params["batch_size"] == "128"
    assert logged.data.params["dropout_rate"] == "0.2"
    assert logged.data.metrics["test_accuracy"] == trained.metrics["test_accuracy"]
    assert logged.data.tags["data_source"] == "sample"
    champion = store.get_model_version_by_alias("mnist", "champion")
    assert champion.run_id == trained.run.state["run_id"]
    card = json.loads((trained.run.folder / "mnist.json").read_text())
    assert card["data_source"] == "sample"
    assert card["sha256"] == sha256_of(trained.run.folder / "mnist.tflite")
    assert card["test_accuracy"] == trained.metrics["test_accuracy"]
    low, high = card["test_interval_95"]
    assert low < trained.metrics["test_accuracy"] < high
    assert (card["epochs"], card["split"], card["parameters"]) == (2, "last", 407_050)
    report = (trained.run.folder / "report.md").read_text()
    assert f"| dense | {trained.metrics['test_accuracy']:.4f} |" in report
    assert f"| floor: majority | {trained.metrics['floor_majority']:.4f} |" in report


# --- The champion --------------------------------------------------------------------------------


@pytest.fixture
def challenger(tmp_path) -> SimpleNamespace:
    """A run whose export and card can be told from any other's."""
    for name in ("mnist.tflite", "mnist.json"):
        (tmp_path / name).write_text("challenger")
    return SimpleNamespace(folder=tmp_path, track=lambda function, *rest: function(*rest))


def files_of(champion: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in champion.glob("mnist.*")}


def test_a_worse_model_is_registered_and_replaces_nothing(trained, store, challenger):
    before = store.get_model_version_by_alias("mnist", "champion")
    card = (trained.run.folder / "mnist.json").read_text()
    tags = before.tags | {"validation_accuracy": "0.1"}
    registry.publish(challenger, BUILDERS["dense"](0.2), np.zeros((2, 784), np.float32), tags)
    versions = store.search_model_versions("name='mnist'")
    assert {version.version for version in versions} > {before.version}
    assert store.get_model_version_by_alias("mnist", "champion").version == before.version
    assert (trained.home / "outputs" / "champion" / "mnist.json").read_text() == card


@pytest.mark.parametrize("wins", [True, False, None])
def test_only_a_winners_files_are_copied(home, challenger, monkeypatch, wins):
    """None stands for a store that can't be reached."""
    (home / "outputs").mkdir()
    monkeypatch.setattr(registry, "log_to_mlflow", lambda *arguments: wins)
    registry.publish(challenger, None, None, {})
    expected = dict.fromkeys(("mnist.tflite", "mnist.json"), "challenger") if wins else {}
    assert files_of(home / "outputs" / "champion") == expected


def test_a_champions_files_are_copied_by_one_training_at_a_time(home, challenger, monkeypatch):
    champion = home / "outputs" / "champion"
    champion.mkdir(parents=True)
    asked = []
    monkeypatch.setattr(registry, "log_to_mlflow", lambda *arguments: asked.append(1) or True)
    publisher = threading.Thread(target=registry.publish, args=(challenger, None, None, {}))
    with FileLock(champion / "lock"):  # another training is at it
        publisher.start()
        publisher.join(0.5)  # without a lock it would be done long before
        assert publisher.is_alive()
        assert not asked
        assert not files_of(champion)
    publisher.join(20)
    assert asked
    assert set(files_of(champion)) == {"mnist.tflite", "mnist.json"}


# --- The export ----------------------------------------------------------------------------------


def test_an_export_that_differs_is_refused(tmp_path, few, monkeypatch):
    labkit.prepare(0)
    model = BUILDERS["dense"](0.2)
    assert export_for_serving(model, tmp_path / "a.tflite", few[0]) <= 1e-5
    other = BUILDERS["dense"](0.2)
    monkeypatch.setattr(model, "export", other.export)  # exports other weights
    other(few[0])
    with pytest.raises(RuntimeError, match="differs from Keras"):
        export_for_serving(model, tmp_path / "b.tflite", few[0])


def test_the_card_has_the_command_that_trains_the_same_model_again():
    shipped = json.loads((LAB / "model" / "mnist.json").read_text())
    usual = train_model.Config(model="compact")
    assert set(train_model.command(usual).split()) == set(shipped["command"].split())
    unusual = train_model.Config(
        epochs=3, split="last", precision="float32", seed=5, data="real", smoke=True, resume=True
    )
    words = train_model.command(unusual).split()
    assert labkit.parse(train_model.Config, [*words[2:], "--resume"]) == unusual
