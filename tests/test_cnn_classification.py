"""TP3's classifiers: the hand-out's numbers, the fast recipe's parts, what is measured on what."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import labkit
from labkit import Data, Part
from tp3_cnn_resnet import cifar10, cnn_classification, fast_cnn, models, normalisation
from tp3_cnn_resnet.cifar10 import translated
from tp3_cnn_resnet.cnn_classification import build_cnn, build_resnet, residual_block
from tp3_cnn_resnet.fast_cnn import whitening
from tp3_cnn_resnet.muon import Muon, orthogonalised
from tp3_cnn_resnet.normalisation import OnePassBatchNormalization, RecalibratedAccuracy

NARROW = fast_cnn.Recipe(epochs=3, small_share=0.34, widths=(8, 8, 8), batch_size=100)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return labkit.load_cifar10("sample").x_train


def test_parameters_are_the_handouts():
    labkit.prepare(0)
    assert build_cnn().count_params() == 2_122_186
    assert build_resnet().count_params() == 153_098
    assert build_resnet(momentum=None).count_params() == 142_314


@pytest.mark.parametrize(
    ("channels", "filters", "stride", "projected"),
    [(3, 32, 1, True), (32, 32, 1, False), (32, 64, 2, True), (64, 64, 2, True)],
)
def test_a_skip_is_projected_where_shapes_differ(channels, filters, stride, projected):
    labkit.prepare(0)
    inputs = keras.Input((8, 8, channels))
    outputs = residual_block(inputs, filters, stride=stride, momentum=None)
    assert outputs.shape == (None, 8 // stride, 8 // stride, filters)
    convolutions = [
        layer
        for layer in keras.Model(inputs, outputs).layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert len(convolutions) == 2 + projected
    assert any(layer.kernel_size == (1, 1) for layer in convolutions) == projected


def test_operations_are_counted_by_hand():
    labkit.prepare(0)
    convolutions = 27 * 32 * 32 * 32 + 288 * 64 * 16 * 16  # kernel, filters, positions
    assert models.forward_flops(build_cnn()) == 2 * (convolutions + 4096 * 512 + 512 * 10)


def test_a_block_with_zero_kernels_is_the_rectified_identity():
    labkit.prepare(0)
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, residual_block(inputs, 2, momentum=None))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(model(x), np.maximum(x, 0))


def test_where_the_sum_is_not_positive_no_gradient_passes_the_block():
    """Its ReLU stands behind the sum: dL/dx = dL/dy 1[x + F > 0] (I + dF/dx)."""
    labkit.prepare(0)
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, residual_block(inputs, 2, momentum=None))
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    for shift, passes in ((-100.0, False), (100.0, True)):
        weights = [np.zeros_like(weight) for weight in model.get_weights()]
        weights[-1] += shift  # F(x) = shift
        model.set_weights(weights)
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(variable))
        np.testing.assert_array_equal(tape.gradient(total, variable), np.full_like(x, passes))


def test_three_steps_even_out_a_spectrum_without_making_it_flat():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(256, 256)))[0] for _ in range(2))

    def lengths_after(spectrum: np.ndarray) -> np.ndarray:
        matrix = tf.constant((left * spectrum) @ right, tf.float32)
        return np.linalg.svd(orthogonalised(matrix).numpy(), compute_uv=False)

    flat = lengths_after(np.ones(256))
    assert 0.7 < flat.min() < flat.max() < 1.2
    falling = 1 / np.arange(1, 257)
    found = lengths_after(falling)
    assert np.median(found / found.max()) > 10 * np.median(falling)
    assert np.median(found) == pytest.approx(0.25, abs=0.02)


def test_the_split_is_the_last_tenth():
    images, data = labkit.load_cifar10("sample"), cifar10.load("sample", smoke=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 200)
    np.testing.assert_array_equal(data.train.x, images.x_train[:900])
    np.testing.assert_array_equal(data.validation.x, images.x_train[900:])
    np.testing.assert_array_equal(data.validation.y, images.y_train[900:])
    every = cifar10.load("sample", False, validation_share=0.0)
    assert (len(every.train), len(every.validation)) == (1000, 0)
    np.testing.assert_array_equal(cifar10.one_hot(data.train.y), np.eye(10)[data.train.y])


def test_floors_are_the_commonest_class_and_a_linear_model():
    x = np.repeat(np.array([0, 0, 0, 255, 255], np.uint8), 3).reshape(5, 1, 1, 3)
    training = Part(x, np.array([4, 4, 4, 7, 7]))
    test = Part(x[2:], np.array([4, 7, 7]))
    assert cifar10.floors(training, test) == {"floor_majority": 1 / 3, "floor_ridge": 1 / 3}
    many = Part(np.repeat(x, 200, axis=0), np.repeat(training.y, 200))  # less regularised
    assert cifar10.floors(many, test)["floor_ridge"] == 1


class SaysItsPixel:
    """A network that takes an image for the class of its first pixel's value."""

    def predict(self, inputs, **settings):
        return 0.91 * np.eye(10)[np.rint(255 * inputs[:, 0, 0, 0]).astype(int)] + 0.009

    def count_params(self):
        return 7


def test_each_part_is_measured_on_its_own_images():
    def part(count: int, wrong: int) -> Part:
        labels = np.arange(count) % 10
        pixels = np.where(np.arange(count) < wrong, (labels + 1) % 10, labels)
        return Part(np.broadcast_to(pixels[:, None, None, None], (count, 1, 2, 3)), labels)

    train = part(10_020, 1000)  # the last 20 are beyond the 10,000 that are measured
    metrics = cifar10.measure(SaysItsPixel(), Data("x", train, part(100, 40), part(50, 35)))
    expected = {"train": 0.9, "validation": 0.6, "test": 0.3}
    for name, accuracy in expected.items():
        loss = -accuracy * np.log(0.919) - (1 - accuracy) * np.log(0.009)
        assert metrics[f"{name}_accuracy"] == pytest.approx(accuracy), name
        assert metrics[f"{name}_loss"] == pytest.approx(loss, rel=1e-4), name
    assert metrics["parameters"] == 7
    nothing = Part(train.x[:0], train.y[:0])
    metrics = cifar10.measure(SaysItsPixel(), Data("x", train, nothing, part(50, 35)))
    assert not [name for name in metrics if "validation" in name]


def test_whitened_patches_are_uncorrelated(images):
    x = models.to_input(images[:200]) + np.random.default_rng(0).normal(0, 0.05, (200, 32, 32, 3))
    kernel, bias = whitening(x)
    patches = np.stack(
        [
            x[n, row : row + 2, column : column + 2].ravel()
            for n in range(200)
            for row in range(31)
            for column in range(31)
        ]
    )
    outputs = patches @ kernel.reshape(12, 24) + bias
    np.testing.assert_allclose(np.cov(outputs[:, :12].T), np.eye(12), atol=0.02)
    np.testing.assert_allclose(outputs[:, :12], -outputs[:, 12:], atol=1e-5)


def test_translation_moves_each_image_by_whole_pixels(images):
    moved = translated(images[:50], np.random.default_rng(1), reach=2)
    shifts = set()
    for before, after in zip(images[:50], moved, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), "reflect")
        found = [
            (top - 2, left - 2)
            for top in range(5)
            for left in range(5)
            if np.array_equal(padded[top : top + 32, left : left + 32], after)
        ]
        assert found
        shifts.update(found)
    assert {abs(step) for shift in shifts for step in shift} == {0, 1, 2}


def test_two_epochs_show_both_sides_of_every_image():
    images = np.zeros((40, 8, 8, 3), np.uint8)
    images[:, :, :4] = 255  # bright on the left
    recipe = fast_cnn.Recipe(epochs=2, reach=0, batch_size=10)
    batches = fast_cnn.alternating(images, np.arange(40), recipe, seed=3, first_epoch=0)
    seen = {}
    for _ in range(2):
        for index in range(len(batches)):
            x, numbers = batches[index]
            for image, number in zip(x, numbers, strict=True):
                seen.setdefault(number, []).append(image[:, :2].mean() > 0.5)
        batches.on_epoch_end()
    assert all(sorted(sides) == [False, True] for sides in seen.values())
    first = [sides[0] for sides in seen.values()]
    assert 5 < sum(first) < 35  # in a random order


@pytest.mark.parametrize("scale", [True, False])
def test_normalisation_in_one_pass_is_keras_own(scale):
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (16, 5, 5, 4)).astype(np.float32)
    settings = {"momentum": 0.6, "epsilon": 1e-5, "scale": scale}
    layers = [OnePassBatchNormalization(**settings), keras.layers.BatchNormalization(**settings)]
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights([rng.normal(size=4) ** 2 for _ in layer.get_weights()])
    layers[1].set_weights(layers[0].get_weights())
    one_pass, plain = (layer(x, training=True) for layer in layers)
    np.testing.assert_allclose(one_pass, plain, atol=1e-4)
    np.testing.assert_allclose(layers[0].moving_mean, layers[1].moving_mean, rtol=1e-5)
    # TensorFlow's variance divides by n - 1, here 399, and Keras' by n.
    np.testing.assert_allclose(layers[0].moving_variance, layers[1].moving_variance, rtol=3e-3)
    layers[1].set_weights(layers[0].get_weights())
    one_pass, plain = (layer(x, training=False) for layer in layers)
    np.testing.assert_allclose(one_pass, plain, atol=1e-5)


def test_recalibrated_statistics_repair_averages_that_lag_behind():
    labels = np.arange(40) % 2
    x = np.full((40, 4, 4, 1), 100, np.float32) + (2 * labels - 1)[:, None, None, None]

    def build(momentum: float) -> keras.Model:  # right where the statistics are those of `x`
        inputs = keras.Input((4, 4, 1))
        normalised = OnePassBatchNormalization(momentum=momentum)(inputs)
        pooled = keras.layers.GlobalAveragePooling2D()(normalised)
        dense = keras.layers.Dense(2, activation="softmax")
        outputs = dense(pooled)
        dense.set_weights([np.array([[-5, 5]], np.float32), np.zeros(2, np.float32)])
        return keras.Model(inputs, outputs)

    labkit.prepare(0)
    model, twin, one_hot = build(0.9999), build(0.0), np.eye(2)[labels]
    model(x, training=True)  # its averages hardly leave where they began
    weights = model.get_weights()
    assert np.mean(model.predict(x, verbose=0).argmax(axis=1) == labels) == 0.5
    recalibrated, logs = RecalibratedAccuracy(twin, x[:20], (x[20:], one_hot[20:])), {}
    recalibrated.set_model(model)
    recalibrated.on_epoch_end(0, logs)
    assert logs == {"val_accuracy_recalibrated": 1.0}
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_convolutions_begin_as_the_identity():
    labkit.prepare(0)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    for filters in (3, 4, 7):
        inputs = keras.Input((6, 6, 4))
        outputs = keras.Model(inputs, fast_cnn.convolve(inputs, filters))(x)
        passed = min(filters, 4)
        np.testing.assert_allclose(outputs[..., :passed], x[..., :passed], atol=1e-6)
        assert outputs.shape[-1] == filters
        assert filters == passed or np.std(outputs[..., passed:]) > 0.1


@pytest.mark.parametrize(("channels", "filters"), [(2, 24), (5, 4)])  # a wide and a tall matrix
def test_kernels_move_alike_in_all_directions_and_the_rest_as_sgd(channels, filters, monkeypatch):
    monkeypatch.setattr(Muon, "dense_rate", 2.0)
    monkeypatch.setattr(Muon, "shift_rate", 8.0)
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    shapes = [(3, 3, channels, filters), (filters, 10), (filters,)]
    expected = [rng.normal(size=shape) for shape in shapes]
    variables = [keras.Variable(value, dtype="float32") for value in expected]
    optimizer = Muon(0.1, momentum=0.85, nesterov=True, weight_decay=0.0)
    optimizer = Muon.from_config(optimizer.get_config())
    velocity = [np.zeros_like(value) for value in expected]
    for _ in range(3):
        gradients = [rng.normal(size=shape) for shape in shapes]
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients], variables)
        velocity[0] = 0.6 * velocity[0] + gradients[0]
        direction = (gradients[0] + 0.6 * velocity[0]).reshape(-1, filters)
        left, values, right = np.linalg.svd(direction, full_matrices=False)
        values /= np.sqrt((values**2).sum())
        for _ in range(3):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        assert 0.3 < values.min() < values.max() < 1.3
        kernel = expected[0] * np.sqrt(filters / (expected[0] ** 2).sum())
        expected[0] = kernel - 0.1 * ((left * values) @ right).reshape(shapes[0])
        for index, rate in ((1, 0.2), (2, 0.8)):
            velocity[index] = 0.85 * velocity[index] - rate * gradients[index]
            step = 0.85 * velocity[index] - rate * gradients[index]  # Nesterov's
            expected[index] = expected[index] + step
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(np.array(variable), value, rtol=1e-3, atol=1e-4)


def test_the_fast_cnn_learns_32_images_by_heart(images):
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    x = models.to_input(rng.integers(0, 256, (32, 16, 16, 3)))
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 32)]
    recipe = fast_cnn.Recipe(epochs=60, widths=(32, 32, 32), batch_size=16, learning_rate=0.05)
    model = fast_cnn.build(images, recipe)
    frozen = model.get_layer("whitening").get_weights()
    fast_cnn.compile_with(recipe, model, steps=120)
    model.fit(x, labels, epochs=60, batch_size=16, verbose=0)
    assert model.evaluate(x, labels, verbose=0)[1] == 1
    for before, after in zip(frozen, model.get_layer("whitening").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_mirror_images_are_averaged(images):
    labkit.prepare(0)
    model = fast_cnn.build(images, NARROW)
    part = Part(images[:60], labkit.load_cifar10("sample").y_train[:60])
    x = models.to_input(part.x)
    mean = (model.predict(x, verbose=0) + model.predict(x[:, :, ::-1], verbose=0)) / 2
    np.testing.assert_allclose(models.predict(model, part.x, mirrored=True), mean, atol=1e-6)
    loss, accuracy = cifar10.score(model, part, mirrored=True)
    assert accuracy == np.mean(mean.argmax(axis=1) == part.y)
    assert loss == pytest.approx(-np.log(mean[np.arange(60), part.y]).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("done", "expected"),
    [(0, [(24, 0, 1), (32, 1, 3)]), (1, [(32, 1, 3)]), (2, [(32, 2, 3)])],
)
def test_a_resumed_training_goes_on_at_the_right_size(done, expected, monkeypatch):
    calls = []

    def fit(model, batches, initial_epoch, epochs, **settings):
        assert batches.epoch == initial_epoch
        calls.append((batches.x.shape[1], initial_epoch, epochs))

    monkeypatch.setitem(fast_cnn.RECIPES, "default", NARROW)
    monkeypatch.setattr(keras.Model, "fit", fit)
    data = cifar10.load("sample", smoke=True)
    labkit.prepare(0)
    run = SimpleNamespace(first_epoch=done, checkpoints=lambda model: None)
    model = fast_cnn.build(data.train.x, NARROW)
    fast_cnn.train(model, fast_cnn.Config(epochs=3), data, run)
    assert calls == expected


def test_a_budget_without_validation_images_trains_on_all(monkeypatch):
    monkeypatch.setitem(
        fast_cnn.RECIPES, "long", fast_cnn.Recipe(5, widths=(8, 8, 8), validation_share=0.0)
    )
    metrics = fast_cnn.main(["--budget", "long", "--smoke", "--data", "sample"])
    assert not [name for name in metrics if "validation" in name]
    run = labkit.find_run("tp3_cnn_resnet.fast_cnn")
    assert run.config["epochs"] == len(run.history["loss"]) == 2
    per_image = metrics["training_petaflop"] / 512
    model = models.load_model(run.folder / "model.keras")
    assert per_image == pytest.approx(3 * 2 * models.forward_flops(model) / 1e15)


def test_the_normalised_resnet_shows_where_its_averages_misled(monkeypatch):
    metrics = cnn_classification.main(
        ["--model", "resnet", "--rate", "falling", "--smoke", "--data", "sample"]
    )
    run = labkit.find_run("tp3_cnn_resnet.cnn_classification")
    accuracies = run.history["val_accuracy"]
    assert metrics["best_epoch"] == np.argmax(accuracies) + 1
    assert metrics["validation_accuracy"] == pytest.approx(max(accuracies), abs=0.04)  # bfloat16
    assert metrics["batchnorm_lag_epoch"] == 2
    assert metrics["batchnorm_lag_validation_accuracy"] == accuracies[1]
    assert run.state["name"] == "resnet-adam_falling-crossentropy-s0"
    report = (run.folder / "report.md").read_text()
    assert f"| floor: ridge | {metrics['floor_ridge']:.4f} |" in report
    assert f"| network | {metrics['test_accuracy']:.4f} |" in report


def test_where_the_averages_misled_most():
    history = {
        "val_accuracy": [0.1, 0.6, 0.5, 0.7],
        "val_accuracy_recalibrated": [0.9, 0.6, 0.7, 0.7],
    }
    found = normalisation.batchnorm_lag(history)
    assert found == {
        "batchnorm_lag_epoch": 3,
        "batchnorm_lag_validation_accuracy": 0.5,
        "batchnorm_lag_validation_accuracy_recalibrated": 0.7,
    }
    assert "in epoch 3: validation 0.5000" in normalisation.lag_in_words(found)
    lines = normalisation.recalibration_figure(history).axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [
        history["val_accuracy_recalibrated"], history["val_accuracy"]
    ]  # fmt: skip


@pytest.mark.realdata
def test_the_floors_of_the_real_images(real_data):
    data = cifar10.load("real", smoke=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5000, 10_000)
    some = Part(data.train.x[:5000], data.train.y[:5000])
    floors = cifar10.floors(some, data.test)
    assert floors["floor_majority"] == 0.1
    assert 0.25 < floors["floor_ridge"] < 0.42
