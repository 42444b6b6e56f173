"""TP3's examination: Grad-CAM and corruptions against closed forms; what its figures show."""

import itertools
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import labkit
from labkit import figures
from tp3_cnn_resnet import cifar10, cnn_classification, corruptions, evaluate, grad_cam, models


@pytest.fixture(autouse=True)
def seed():
    labkit.prepare(0)


def pooled_network(activation: str | None = "softmax") -> keras.Model:
    """Convolution, mean over all places, dense: Grad-CAM has a closed form."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="maps")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(4, activation=activation, bias_initializer="uniform", name="last")(x)
    outputs = x if activation else keras.layers.Softmax()(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_grad_cam_is_the_class_activation_map_behind_a_mean(activation):
    """Zhou et al. 2016: the sum of maps by the dense layer's weights, up to ReLU and scale."""
    model = pooled_network(activation)
    rng = np.random.default_rng(0)
    images, classes = rng.random((5, 8, 8, 3), np.float32), np.array([0, 3, 1, 2, 2])
    maps = keras.Model(model.input, model.get_layer("maps").output)(images)
    weights = model.get_layer("last").get_weights()[0]  # (6, 4)
    expected = np.maximum(np.einsum("nhwk,kn->nhw", maps, weights[:, classes]), 0)
    highest = expected.max(axis=(1, 2), keepdims=True)
    expected /= np.where(highest > 0, highest, 1)
    heat = grad_cam.grad_cam(model, images, classes, "maps")
    assert heat.shape == (5, 8, 8)
    np.testing.assert_allclose(heat, expected, atol=1e-5)
    assert expected.any()
    each = grad_cam.hires_cam(model, images, classes, "maps")
    np.testing.assert_allclose(each, expected, atol=1e-5)  # a mean's gradient is the same all over


def test_hires_cam_behind_a_maximum_is_hot_at_the_maximum_alone():
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="maps")(inputs)
    scores = keras.layers.Dense(2, kernel_initializer="ones", activation="softmax")(
        keras.layers.GlobalMaxPooling2D()(maps)
    )
    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    heat = grad_cam.hires_cam(keras.Model(inputs, scores), image, np.array([0]), "maps")
    sums = image.sum(axis=-1)
    np.testing.assert_array_equal(heat, sums == sums.max())


def test_grad_cam_is_hot_where_the_class_is_and_zero_for_the_other():
    model = pooled_network()
    kernel = np.zeros((3, 3, 3, 6), np.float32)
    kernel[1, 1, :, 0] = 1  # channel 0: brightness
    model.get_layer("maps").set_weights([kernel, np.zeros(6, np.float32)])
    dense = np.zeros((6, 4), np.float32)
    dense[0] = 1, -1, 0, 0  # bright: class 0, dark: class 1
    model.get_layer("last").set_weights([dense, np.zeros(4, np.float32)])
    image = np.zeros((8, 8, 3), np.float32)
    image[1:3, 5:8] = 1
    heat = grad_cam.grad_cam(model, np.stack([image, image]), np.array([0, 1]), "maps")
    np.testing.assert_allclose(heat[0], image[..., 0])
    np.testing.assert_array_equal(heat[1], 0)


def test_the_score_is_what_comes_before_the_softmax():
    model = pooled_network()
    images = np.random.default_rng(1).random((3, 8, 8, 3), np.float32)
    scores = keras.Model(model.input, grad_cam.class_scores(model))(images)
    np.testing.assert_allclose(keras.ops.softmax(scores), model(images), atol=1e-6)
    with pytest.raises(ValueError, match="softmax"):
        grad_cam.class_scores(keras.Model(model.input, model.get_layer("maps").output))


def test_feature_layers_are_the_last_of_each_resolution():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 2, name="a")(inputs)
    x = keras.layers.Activation("relu", name="b")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(2, 3, padding="same", name="c")(x)
    x = keras.layers.MaxPooling2D()(x)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(x))
    layers = grad_cam.feature_layers(model, np.zeros((32, 32, 3), np.float32))
    assert layers == {"b": 31, "c": 15}


def test_first_layer_is_kernels_and_maps_behind_the_relu():
    model = pooled_network()
    image = np.random.default_rng(2).random((8, 8, 3), np.float32)
    kernels, maps = grad_cam.first_layer(model, image)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    expected = np.einsum("hwcij,ijck->hwk", windows, kernels)
    np.testing.assert_allclose(maps, np.maximum(expected, 0), atol=1e-5)


@pytest.fixture
def grey_images() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 196, (4, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_corruptions_get_stronger_and_repeat(kind, grey_images):
    before = grey_images.copy()
    changes = []
    for strength in corruptions.STRENGTHS:
        worse = corruptions.corrupt(grey_images, kind, strength, seed=0)
        assert worse.shape == grey_images.shape
        assert worse.dtype == np.uint8
        np.testing.assert_array_equal(
            worse, corruptions.corrupt(grey_images, kind, strength, seed=0)
        )
        changes.append(np.abs(worse.astype(float) - grey_images).mean())
    np.testing.assert_array_equal(grey_images, before)
    assert changes[0] > 0
    assert all(later > earlier for earlier, later in itertools.pairwise(changes))


def test_corruptions_are_what_they_say():
    rng = np.random.default_rng(0)
    grey = np.full((20, 32, 32, 3), 0.5)
    assert (corruptions.gaussian_noise(grey, 0.1, rng) - grey).std() == pytest.approx(0.1, rel=0.02)
    # The variance of a Poisson variable is its mean: 0.5 / photons after the division.
    assert corruptions.shot_noise(grey, 100, rng).var() == pytest.approx(0.005, rel=0.03)
    broken = corruptions.impulse_noise(grey, 0.1, rng)
    assert np.mean(broken != 0.5) == pytest.approx(0.1, rel=0.05)
    assert set(np.unique(broken)) == {0, 0.5, 1}

    dot = np.zeros((6, 32, 32, 3))
    dot[:, 16, 16] = 1
    for blurred in (
        corruptions.gaussian_blur(dot, 1.0, rng),
        corruptions.motion_blur(dot, 5, rng),
    ):
        np.testing.assert_allclose(blurred.sum(axis=(1, 2)), 1, atol=1e-6)
    spread = np.count_nonzero(corruptions.motion_blur(dot, 5, rng)[..., 0], axis=(1, 2))
    assert np.all(spread == 5)
    image = rng.random((1, 32, 32, 3))
    np.testing.assert_allclose(corruptions.contrast(image, 0, rng).std(axis=(1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(corruptions.contrast(image, 1, rng), image)
    small = corruptions.pixelate(image, 16, rng)
    np.testing.assert_array_equal(small[:, ::2, ::2], small[:, 1::2, 1::2])


def test_words_on_a_confusion_matrix_are_turned_and_digits_are_not():
    counts = np.eye(10, dtype=int)
    for names, rotation in (("0123456789", 0), (cifar10.CLASSES, 45)):
        axis = figures.confusion_matrix(counts, names).axes[0]
        assert {label.get_rotation() for label in axis.get_xticklabels()} == {rotation}


@pytest.fixture(scope="module")
def examined(tmp_path_factory, empty_store) -> SimpleNamespace:
    """A smoke training and its examination: metrics, report, figures, the heat maps drawn."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, home / "mlflow.db")
    found = SimpleNamespace(figures={}, heats={}, data=cifar10.load("sample", smoke=True))
    save, draw = labkit.Run.save_figure, grad_cam.heat_figure

    def save_figure(run, name, figure):
        found.figures[name] = figure
        return save(run, name, figure)

    def heat_figure(images, titles, heats):
        numbers = [int(re.search(r"#(\d+)$", title)[1]) for title in titles]
        np.testing.assert_array_equal(images, found.data.test.x[numbers])
        found.heats |= {name: (numbers, maps) for name, maps in heats.items()}
        return draw(images, titles, heats)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(home))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        cnn_classification.main(["--smoke", "--data", "sample"])
        patch.setattr(labkit.Run, "save_figure", save_figure)
        patch.setattr(grad_cam, "heat_figure", heat_figure)
        trained = labkit.find_run(evaluate.EXAMINES)
        identifier = trained.state["run_id"]
        found.metrics = evaluate.main(["--run", identifier[:8], "--smoke", "--data", "sample"])
        found.folder = labkit.find_run("tp3_cnn_resnet.evaluate").folder
    found.model = models.load_model(trained.folder / "model.keras")
    found.predicted = models.predict(found.model, found.data.test.x).argmax(axis=1)
    return found


def test_the_accuracy_is_within_its_interval_and_in_the_report(examined):
    accuracy = np.mean(examined.predicted == examined.data.test.y)
    assert examined.metrics["test_accuracy"] == accuracy
    assert examined.metrics["test_accuracy_low"] < accuracy < examined.metrics["test_accuracy_high"]
    report = (examined.folder / "report.md").read_text()
    assert (
        f"| network | {accuracy:.4f} | {examined.metrics['test_accuracy_mirrored']:.4f}" in report
    )
    assert f"| floor: ridge | {examined.metrics['floor_ridge']:.4f} |" in report


def test_every_figure_is_drawn(examined):
    assert {path.stem for path in examined.folder.glob("*.png")} == set(examined.figures) == {
        "confusion_matrix", "most_confident_errors", "grad_cam", "grad_cam_errors", "first_layer",
        "corruptions", "robustness",
    }  # fmt: skip


def test_rows_of_the_confusion_matrix_are_the_truth(examined):
    expected = np.zeros((10, 10), int)
    for true, predicted in zip(examined.data.test.y, examined.predicted, strict=True):
        expected[true, predicted] += 1
    assert (expected != expected.T).any()
    axis = examined.figures["confusion_matrix"].axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    drawn = np.zeros((10, 10), int)
    for text in axis.texts:
        column, row = text.get_position()
        drawn[row, column] = int(text.get_text())
    np.testing.assert_array_equal(drawn, expected)
    assert [label.get_text() for label in axis.get_yticklabels()] == list(cifar10.SAMPLE_CLASSES)


def test_heat_maps_are_of_the_class_that_they_name(examined):
    labels, predicted = examined.data.test.y.astype(int), examined.predicted
    layers = grad_cam.feature_layers(examined.model, models.to_input(examined.data.test.x[0]))
    right = next(name for name in examined.heats if name.startswith("Grad-CAM"))
    for name, classes in (
        (right, labels), ("for the prediction", predicted), ("for the truth", labels)
    ):  # fmt: skip
        numbers, heats = examined.heats[name]
        assert (predicted[numbers] == labels[numbers]).all() == (name == right)
        x = models.to_input(examined.data.test.x[numbers])
        expected = grad_cam.grad_cam(examined.model, x, classes[numbers], list(layers)[-1])
        np.testing.assert_allclose(heats, expected, atol=1e-5)
    both = [examined.heats[name][1] for name in ("for the prediction", "for the truth")]
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_errors_are_shown_from_the_most_confident(examined):
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
    found = evaluate.most_confident_errors(probabilities, np.array([1, 0, 1, 1]))
    np.testing.assert_array_equal(found, [1, 3, 0])
    shown = [axis for axis in examined.figures["most_confident_errors"].axes if axis.get_title()]
    numbers = [int(re.search(r"#(\d+)$", axis.get_title())[1]) for axis in shown]
    labels = examined.data.test.y
    assert all(examined.predicted[number] != labels[number] for number in numbers)
    names = [axis.get_title().split(" taken for")[0] for axis in shown]
    assert names == [cifar10.SAMPLE_CLASSES[labels[number]] for number in numbers]


def test_robustness_is_measured_on_corrupted_images(examined):
    test = examined.data.test
    step = len(test) // 16
    some = labkit.Part(test.x[::step], test.y[::step])
    accuracies = []
    for strength in corruptions.STRENGTHS:
        worse = corruptions.corrupt(some.x, "fog", strength, seed=0)
        accuracies.append(np.mean(models.predict(examined.model, worse).argmax(axis=1) == some.y))
    assert examined.metrics["accuracy_fog"] == pytest.approx(np.mean(accuracies))
    clean = np.mean(examined.predicted[::step] == some.y)
    assert examined.metrics["accuracy_clean"] == clean
    panel = next(a for a in examined.figures["robustness"].axes if a.get_title() == "fog")
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [clean, *accuracies])
