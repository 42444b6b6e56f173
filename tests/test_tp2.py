"""TP2's scripts: the hand-out's numbers, models that learn, the diagnosis, folding."""

import keras
import numpy as np
import pytest

import labkit
from tp1_mnist_api.train_model import to_input
from tp2_improvement import evaluate
from tp2_improvement import tp2_ex1_bias_variance as diagnosis
from tp2_improvement import tp2_ex2_regularization as regularization
from tp2_improvement import tp2_ex3_optimizers as optimizers
from tp2_improvement import tp2_ex4_batchnorm as batchnorm
from tp2_improvement.comparison import Settings, common


@pytest.fixture
def few() -> tuple[np.ndarray, np.ndarray]:
    data = labkit.load_mnist("sample")
    return to_input(data.x_train[:32]), data.y_train[:32]


def regularized(**changes: float) -> regularization.RegularizerTrial:
    settings = common(Settings(data="sample"))
    return regularization.RegularizerTrial(
        configuration="x", purpose="choose", seed=0, **settings, **changes
    )


BUILDERS = {
    "linear": diagnosis.build_linear,
    "handout_regularized": lambda: regularization.build(
        regularized(**regularization.HANDOUT["handout_l2_two_dropouts"])
    ),
    **{
        f"batchnorm_{place}": lambda place=place: batchnorm.build(place)
        for place in batchnorm.PLACEMENTS
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_each_model_can_learn_32_images_by_heart(name, few):
    labkit.prepare(0)
    model = BUILDERS[name]()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*few, epochs=150, batch_size=16, verbose=0)
    assert np.mean(model.predict(few[0], verbose=0).argmax(axis=1) == few[1]) == 1


@pytest.mark.parametrize(
    ("placement", "parameters", "trainable"),
    [("none", 407_050, 407_050), ("after", 409_098, 408_074), ("before", 408_586, 407_562)],
)
def test_batchnorm_has_the_handouts_parameters(placement, parameters, trainable):
    model = batchnorm.build(placement)
    assert model.count_params() == parameters
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    kinds = [type(layer).__name__ for layer in model.layers]
    if placement == "after":
        assert kinds[1:] == ["Dense", "BatchNormalization", "Dropout", "Dense"]


@pytest.mark.parametrize("placement", batchnorm.PLACEMENTS)
def test_folding_keeps_every_prediction(placement, few):
    labkit.prepare(0)
    model = batchnorm.build(placement)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*few, epochs=5, verbose=0)  # moves the averages away from 0 and 1
    folded = batchnorm.fold(model, placement)
    assert folded.count_params() == 407_050
    np.testing.assert_allclose(
        folded.predict(few[0], verbose=0), model.predict(few[0], verbose=0), atol=1e-5
    )


def test_the_handouts_regularised_network_has_l2_and_two_dropouts():
    trial = regularized(**regularization.HANDOUT["handout_l2_two_dropouts"])
    model = regularization.build(trial)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Dropout", "Dense", "Dropout", "Dense"]
    penalty = float(model.losses[0])
    kernel = model.layers[2].kernel
    assert penalty == pytest.approx(0.001 * float(np.sum(np.square(kernel))), rel=1e-5)


def test_every_method_and_every_optimizer_has_the_same_budget():
    strengths = {name: len(tried) for name, tried in regularization.METHODS.items()}
    assert strengths.pop("none") == 1  # nothing to choose
    assert set(strengths.values()) == {3}
    assert {len(rates) for rates in optimizers.LEARNING_RATES.values()} == {4}


def test_adamw_decays_kernels_by_rate_times_decay_and_no_bias():
    """Loshchilov and Hutter, algorithm 2: with a zero gradient only the decay moves a weight."""
    labkit.prepare(0)
    optimizer = keras.optimizers.AdamW(0.001, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = (keras.Variable(np.ones((2, 2)), name=name) for name in ("kernel", "bias"))
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.zeros((2, 2))] * 2)
    np.testing.assert_allclose(kernel, 1 - 0.001 * 0.1, rtol=1e-6)
    np.testing.assert_allclose(bias, 1)


def test_optimizers_are_the_handouts_and_new_each_time():
    settings = optimizers.make_optimizer("momentum", 0.01).get_config()
    assert (settings["momentum"], settings["nesterov"]) == (0.9, False)
    assert optimizers.make_optimizer("nesterov", 0.01).get_config()["nesterov"] is True
    for key, (name, rate) in optimizers.HANDOUT.items():
        first, second = (optimizers.make_optimizer(name, rate) for _ in range(2))
        assert first is not second
        assert type(first).__name__ in key
        assert float(first.learning_rate.numpy()) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("train_accuracy", "validation_accuracy", "expected"),
    [
        ([0.99, 0.991, 0.989], [0.98, 0.981, 0.979], "neither"),
        ([0.90, 0.901, 0.899], [0.90, 0.90, 0.899], "bias"),
        ([1.0, 1.0, 1.0], [0.88, 0.881, 0.879], "variance"),
        ([0.93, 0.931, 0.929], [0.88, 0.881, 0.879], "bias and variance"),
        ([0.99, 0.991, 0.989], [0.97, 0.975, 0.965], "variance undecided"),
    ],
)
def test_the_rule_gives_each_verdict(train_accuracy, validation_accuracy, expected):
    assert diagnosis.verdict(train_accuracy, validation_accuracy) == expected


def test_mcnemar_against_the_binomial_by_hand():
    first = np.array([True] * 8 + [False] + [True] * 5)
    second = np.array([False] * 8 + [True] + [True] * 5)
    # 8 against 1: two-sided p = 2 (C(9,8) + C(9,9)) / 2^9
    assert evaluate.mcnemar(first, second) == pytest.approx(2 * (9 + 1) / 512)
    assert evaluate.mcnemar(first, first) == 1
