"""TP1's training: the hand-out's numbers, models that learn, the champion, an exact export."""

import json

import mlflow
import numpy as np
import pytest

import labkit
from tp1_mnist_api import train_model
from tp1_mnist_api.app import Model
from tp1_mnist_api.export import export_for_serving
from tp1_mnist_api.models import BUILDERS, average_over_shifts
from tp1_mnist_api.serving.model_file import LAB
from tp1_mnist_api.train_model import RECIPES, beats, to_input, validation_indices


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
def test_each_model_can_learn_32_images_by_heart(name, few):
    labkit.prepare(0)
    x, y = few
    model = BUILDERS[name](RECIPES[name].dropout_rate)
    assert model.input_shape == (None, 784)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=60, batch_size=16, verbose=0)
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(predicted.argmax(axis=1) == y) == 1


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


def test_a_whole_training_is_tracked_registered_and_exported(home):
    metrics = train_model.main(["--model", "dense", "--epochs", "2", "--data", "sample"])
    run = labkit.find_run("tp1_mnist_api.train_model")
    logged = mlflow.get_run(run.state["run_id"])
    assert logged.data.params["epochs"] == "2"
    assert logged.data.params["batch_size"] == "128"
    assert logged.data.params["dropout_rate"] == "0.2"
    assert logged.data.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert logged.data.tags["data_source"] == "sample"
    assert metrics["test_accuracy"] > metrics["floor_majority"]

    champion = mlflow.MlflowClient().get_model_version_by_alias("mnist", "champion")
    assert champion.run_id == run.state["run_id"]
    restored = mlflow.pyfunc.load_model("models:/mnist@champion")
    assert restored.metadata.signature.inputs.input_types()[0] == np.float32
    images = to_input(labkit.load_mnist("sample").x_test)
    expected = restored.predict(images)
    served = Model(run.folder / "mnist.tflite")
    np.testing.assert_allclose(served.predict(images), expected, atol=1e-5)
    assert (home / "outputs" / "champion" / "mnist.tflite").exists()
    names = {path.name for path in run.folder.iterdir()}
    assert {"report.md", "learning_curves.png", "model.keras", "mnist.json"} <= names
    assert json.loads((run.folder / "mnist.json").read_text())["data_source"] == "sample"

    worse = train_model.main(["--model", "dense", "--epochs", "1", "--data", "sample"])
    assert worse["validation_accuracy"] < metrics["validation_accuracy"]
    unchanged = mlflow.MlflowClient().get_model_version_by_alias("mnist", "champion")
    assert unchanged.version == champion.version


def test_an_export_that_differs_is_refused(tmp_path, few, monkeypatch):
    labkit.prepare(0)
    model = BUILDERS["dense"](0.2)
    assert export_for_serving(model, tmp_path / "a.tflite", few[0]) <= 1e-5
    other = BUILDERS["dense"](0.2)
    monkeypatch.setattr(model, "export", other.export)  # exports other weights
    other(few[0])
    with pytest.raises(RuntimeError, match="differs from Keras"):
        export_for_serving(model, tmp_path / "b.tflite", few[0])


@pytest.mark.realdata
@pytest.mark.slow
def test_one_epoch_on_real_mnist(real_data):
    metrics = train_model.main(["--model", "dense", "--epochs", "1", "--data", "real"])
    assert 0.95 < metrics["test_accuracy"] < 0.985
    assert 0.90 < metrics["floor_logistic_regression"] < 0.93
    assert metrics["floor_majority"] == 0.1135


def test_the_card_has_the_command_that_trains_the_same_model_again():
    shipped = json.loads((LAB / "model" / "mnist.json").read_text())
    usual = train_model.Config(model="compact")
    assert train_model.command(usual) == shipped["command"]
    unusual = train_model.Config(
        epochs=3, split="last", precision="float32", seed=5, data="real", smoke=True, resume=True
    )
    words = train_model.command(unusual).split()
    assert labkit.parse(train_model.Config, [*words[2:], "--resume"]) == unusual
