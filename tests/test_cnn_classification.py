"""TP3's classifiers: the hand-out's numbers, the fast recipe's parts, a resumed training."""

import keras
import numpy as np
import pytest

import labkit
from tp3_cnn_resnet import cnn_classification, fast_resnet, models
from tp3_cnn_resnet.augmentation import translated
from tp3_cnn_resnet.cnn_classification import Config, Part, split
from tp3_cnn_resnet.fast_resnet import AlternatingBatches, Muon, whitening
from tp3_cnn_resnet.normalisation import OnePassBatchNormalization, RecalibratedAccuracy

NARROW = fast_resnet.Recipe(epochs=3, small_share=0.34, widths=(8, 8, 8), batch_size=100)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return labkit.load_cifar10("sample").x_train


def test_parameters_are_the_handouts():
    labkit.prepare(0)
    assert models.build_cnn().count_params() == 2_122_186
    assert models.build_resnet().count_params() == 153_098
    assert models.build_resnet(momentum=None).count_params() == 142_314


@pytest.mark.parametrize(
    ("channels", "filters", "stride", "projected"),
    [(3, 32, 1, True), (32, 32, 1, False), (32, 64, 2, True), (64, 64, 2, True)],
)
def test_a_skip_is_projected_where_shapes_differ(channels, filters, stride, projected):
    labkit.prepare(0)
    inputs = keras.Input((8, 8, channels))
    outputs = models.residual_block(inputs, filters, stride=stride, momentum=None)
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
    assert models.forward_flops(models.build_cnn()) == 2 * (convolutions + 4096 * 512 + 512 * 10)


def test_a_block_with_zero_kernels_is_the_rectified_identity():
    labkit.prepare(0)
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, models.residual_block(inputs, 2, momentum=None))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(model(x), np.maximum(x, 0))


def test_the_split_is_the_last_tenth():
    data = labkit.load_cifar10("sample")
    training, validation = split(data)
    assert (len(training.images), len(validation.images)) == (900, 100)
    np.testing.assert_array_equal(validation.images, data.x_train[-100:])
    assert training.one_hot.shape == (900, 10)
    np.testing.assert_array_equal(training.one_hot.argmax(axis=1), training.labels)
    training, validation = split(data, 0.0)
    assert (len(training.images), len(validation.images)) == (1000, 0)


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
    recipe = fast_resnet.Recipe(epochs=2, reach=0, batch_size=10)
    batches = AlternatingBatches(images, np.arange(40), recipe, seed=3, first_epoch=0)
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


def test_recalibrated_statistics_repair_averages_that_lag_behind(images):
    labkit.prepare(0)
    labels = np.eye(10, dtype=np.float32)[labkit.load_cifar10("sample").y_train]
    x = models.to_input(images)
    model, twin = models.build_resnet(momentum=0.9999), models.build_resnet(momentum=0.0)
    recalibrated = RecalibratedAccuracy(twin, x[:200], (x[-100:], labels[-100:]))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    weights = model.get_weights()
    history = model.fit(
        x[:-100],
        labels[:-100],
        epochs=2,
        validation_data=(x[-100:], labels[-100:]),
        callbacks=[recalibrated],
        verbose=0,
    ).history
    assert history["val_accuracy"][-1] < 0.3  # its averages have hardly left where they began
    assert history["val_accuracy_recalibrated"][-1] > history["val_accuracy"][-1] + 0.2
    assert any((a != b).any() for a, b in zip(weights, model.get_weights(), strict=True))


def test_convolutions_begin_as_the_identity():
    labkit.prepare(0)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    for filters in (3, 4, 7):
        inputs = keras.Input((6, 6, 4))
        outputs = keras.Model(inputs, fast_resnet.convolve(inputs, filters))(x)
        passed = min(filters, 4)
        np.testing.assert_allclose(outputs[..., :passed], x[..., :passed], atol=1e-6)
        assert outputs.shape[-1] == filters
        assert filters == passed or np.std(outputs[..., passed:]) > 0.1


@pytest.mark.parametrize(("channels", "filters"), [(2, 24), (5, 4)])  # a wide and a tall matrix
def test_kernels_move_alike_in_all_directions_and_the_rest_as_sgd(channels, filters):
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    shapes = [(3, 3, channels, filters), (filters, 10), (filters,)]
    expected = [rng.normal(size=shape) for shape in shapes]
    variables = [keras.Variable(value, dtype="float32") for value in expected]
    optimizer = Muon(
        0.1, dense_rate=2.0, shift_rate=8.0, momentum=0.85, nesterov=True, weight_decay=0.0
    )
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


def test_fast_resnet_learns_32_images_by_heart(images):
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    x = models.to_input(rng.integers(0, 256, (32, 32, 32, 3)))
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 32)]
    recipe = fast_resnet.Recipe(epochs=60, widths=(32, 32, 32), batch_size=16, learning_rate=0.05)
    model = fast_resnet.build(images, recipe)
    frozen = model.get_layer("whitening").get_weights()
    fast_resnet.compile_with(recipe, model, steps=120)
    model.fit(x, labels, epochs=60, batch_size=16, verbose=0)
    assert model.evaluate(x, labels, verbose=0)[1] == 1
    for before, after in zip(frozen, model.get_layer("whitening").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_mirror_images_are_averaged(images):
    labkit.prepare(0)
    model = fast_resnet.build(images, NARROW)
    part = Part(images[:60], labkit.load_cifar10("sample").y_train[:60])
    x = models.to_input(part.images)
    mean = (model.predict(x, verbose=0) + model.predict(x[:, :, ::-1], verbose=0)) / 2
    loss, accuracy = cnn_classification.score(model, part, mirrored=True)
    assert accuracy == np.mean(mean.argmax(axis=1) == part.labels)
    assert loss == pytest.approx(-np.log(mean[np.arange(60), part.labels]).mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2])  # on small images, on whole ones
def test_resumed_equals_uninterrupted(images, tmp_path, monkeypatch, stop_after):
    monkeypatch.setitem(fast_resnet.RECIPES, "default", NARROW)
    arguments = ["--data", "sample", "--epochs", "3", "--precision", "float32"]
    whole = cnn_classification.main(arguments)

    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    record_epoch = labkit.Run.record_epoch

    def interrupted(run, epoch, *rest):
        record_epoch(run, epoch, *rest)
        if epoch + 1 == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(labkit.Run, "record_epoch", interrupted)
        with pytest.raises(SystemExit, match="130"):
            cnn_classification.main(arguments)
    resumed = cnn_classification.main([*arguments, "--resume"])
    for name, value in whole.items():
        if name != "train_seconds":
            assert resumed[name] == value, name


def test_the_best_epoch_is_tested_and_the_last_one_shown(monkeypatch):
    arguments = ["--data", "sample", "--model", "cnn", "--epochs", "3"]
    metrics = cnn_classification.main(arguments)
    run = labkit.find_run("tp3_cnn_resnet.cnn_classification")
    assert metrics["best_epoch"] == np.argmax(run.history["val_accuracy"]) + 1
    assert metrics["validation_accuracy"] == pytest.approx(max(run.history["val_accuracy"]))
    assert not (run.folder / "best.weights.h5").exists()
    saved = keras.saving.load_model(run.folder / "model.keras")
    data = labkit.load_cifar10("sample")
    assert cnn_classification.score(saved, Part(data.x_test, data.y_test))[1] == pytest.approx(
        metrics["test_accuracy"]
    )
    assert metrics["test_accuracy"] > metrics["floor_majority"]


def test_where_the_averages_misled_most():
    history = {
        "val_accuracy": [0.1, 0.6, 0.5, 0.7],
        "val_accuracy_recalibrated": [0.9, 0.6, 0.7, 0.7],
    }
    assert cnn_classification.batchnorm_lag(history) == {
        "batchnorm_lag_epoch": 3,
        "batchnorm_lag_validation_accuracy": 0.5,
        "batchnorm_lag_validation_accuracy_recalibrated": 0.7,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--model", "cnn", "--budget", "long"], "--budget long is for fast-resnet, not for cnn"),
        (["--rate", "falling"], "--rate falling is not for fast-resnet"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        labkit.parse(Config, arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.realdata
def test_one_epoch_on_real_images(real_data):
    metrics = cnn_classification.main(["--model", "cnn", "--epochs", "1", "--data", "real"])
    assert 0.50 < metrics["test_accuracy"] < 0.68
    assert 0.35 < metrics["floor_ridge"] < 0.42
    assert metrics["floor_majority"] == 0.1
