"""TP5's attention layers: against loops and Keras, exact zeros on padding, saved and loaded."""

import keras
import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import attention_scale
from tp5_seq2seq_attention.attention import (
    MultiHeadAttention,
    ScaledDotProductAttention,
    SimpleAttention,
    masked_softmax,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 7, 5)).astype(np.float32)
MASK = np.arange(7) < np.array([7, 4, 1])[:, None]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


@pytest.fixture(autouse=True)
def seeded():
    labkit.prepare(0)


# --- Softmax -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masked_positions_have_no_weight_at_all(dtype):
    scores = keras.ops.cast(100 * X[..., 0], dtype)
    weights = np.array(masked_softmax(scores, MASK))
    assert weights.dtype == np.float32
    assert (weights[~MASK] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    rows = np.array(keras.ops.cast(scores, "float32"))
    for found, row, kept in zip(weights, rows, MASK, strict=True):
        # TensorFlow rounds what is below 1e-38 to 0.
        np.testing.assert_allclose(found[kept], softmax(row[kept]), rtol=1e-5, atol=1e-37)


def test_a_row_of_padding_has_no_weight_and_no_nan():
    weights = np.array(masked_softmax(X[..., 0], np.zeros((3, 7), bool)))
    np.testing.assert_array_equal(weights, 0)


# --- The hand-out's layer ------------------------------------------------------------------------


def test_the_handouts_weights():
    layer = SimpleAttention()
    layer.build((None, 7, 5))
    assert [(weight.name, weight.shape) for weight in layer.weights] == [
        ("att_weight", (5, 1)),
        ("att_bias", (7, 1)),
    ]
    assert not np.array(layer.att_bias).any()
    assert np.array(layer.att_weight).std() > 0


@pytest.mark.parametrize("gain", [None, 3.0])
@pytest.mark.parametrize("bias", ["per_step", "shared"])
def test_simple_attention_against_a_loop(bias, gain):
    layer = SimpleAttention(bias, gain)
    layer.build(X.shape)
    layer.att_bias.assign(RNG.standard_normal(layer.att_bias.shape))
    context, weights = layer(X, mask=MASK)
    weight, offsets = np.array(layer.att_weight), np.array(layer.att_bias)
    for row in range(3):
        scores = []
        for step in range(MASK[row].sum()):
            score = np.tanh(
                sum(X[row, step, i] * weight[i, 0] for i in range(5))
                + offsets[step if bias == "per_step" else 0, 0]
            )
            scores.append((gain or 1) * score)
        expected = softmax(np.array(scores))
        np.testing.assert_allclose(weights[row][: len(scores)], expected, rtol=1e-5)
        assert (np.array(weights[row][len(scores) :]) == 0).all()
        mean = sum(a * x for a, x in zip(expected, X[row], strict=False))
        np.testing.assert_allclose(context[row], mean, rtol=1e-4, atol=1e-6)


def test_values_are_read_where_the_steps_are_scored():
    layer = SimpleAttention("shared")
    values = RNG.standard_normal((3, 7, 2)).astype(np.float32)
    context, weights = layer(X, values)
    np.testing.assert_allclose(
        context, np.einsum("bt,btd->bd", weights, values), rtol=1e-5, atol=1e-6
    )


def test_a_tanh_without_gain_bounds_the_largest_weight():
    length = 50
    x = -np.ones((1, length, 1), np.float32)
    x[0, 13] = 1
    layer = SimpleAttention("shared")
    layer.build(x.shape)
    layer.att_weight.assign([[100.0]])  # as sure as it can be
    _, weights = layer(x)
    bound = np.e**2 / (np.e**2 + length - 1)
    assert bound == pytest.approx(0.131, abs=1e-3)
    assert np.array(weights).max() == pytest.approx(bound, rel=1e-5)
    free = SimpleAttention("shared", gain=8.0)
    free.build(x.shape)
    free.att_weight.assign([[100.0]])
    assert np.array(free(x)[1]).max() > 0.999


def test_padding_and_length_change_nothing_with_a_shared_bias():
    layer = SimpleAttention("shared", gain=2.0)
    alone, _ = layer(X[1:2, :4])
    padded, _ = layer(X[1:2], mask=MASK[1:2])
    np.testing.assert_allclose(alone, padded, rtol=1e-5)


def test_an_open_length_needs_a_shared_bias():
    states = keras.Input((None, 5))
    with pytest.raises(ValueError, match=r"fixed length.*shared"):
        SimpleAttention()(states)
    context, weights = SimpleAttention("shared")(states)
    assert (context.shape, weights.shape) == ((None, 5), (None, None))


@pytest.mark.parametrize("options", [{"bias": "none"}, {"gain": 0.0}, {"gain": -1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SimpleAttention(**options)


@pytest.mark.parametrize("bias", ["per_step", "shared"])
def test_the_embeddings_mask_arrives_and_the_model_comes_back(bias, tmp_path):
    tokens = keras.Input((6,), dtype="int32")
    vectors = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    states = keras.layers.GRU(3, return_sequences=True)(vectors)
    context, weights = SimpleAttention(bias, gain=2.0)(states)
    read, other = SimpleAttention(bias)(states, vectors)
    found = ScaledDotProductAttention()(context[:, None], states, states)
    mixed, heads = MultiHeadAttention(2, 2)(vectors, vectors, return_scores=True)
    model = keras.Model(tokens, [weights, other, read, found, mixed, heads])
    x = np.array([[3, 1, 4, 1, 5, 8], [2, 7, 0, 0, 0, 0]])
    outputs = model.predict(x, verbose=0)
    for weights in outputs[:2]:
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
        assert (weights[1, 2:] == 0).all()
        assert (weights[0] > 0).all()
    assert (outputs[5][1, :, :, 2:] == 0).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    for before, after in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(before, after)


# --- Scaled dot products -------------------------------------------------------------------------

QUERY = RNG.standard_normal((3, 2, 5)).astype(np.float32)
VALUE = RNG.standard_normal((3, 7, 4)).astype(np.float32)


@pytest.mark.parametrize("scaled", [True, False])
def test_scaled_dot_products_against_a_loop(scaled):
    layer = ScaledDotProductAttention(scaled)
    result, weights = layer(QUERY, X, VALUE, key_mask=MASK, return_scores=True)
    for row in range(3):
        for step in range(2):
            kept = MASK[row].sum()
            scores = np.array([QUERY[row, step] @ X[row, t] for t in range(kept)])
            expected = softmax(scores / (np.sqrt(5) if scaled else 1))
            np.testing.assert_allclose(weights[row][step][:kept], expected, rtol=1e-4)
            assert (np.array(weights[row][step][kept:]) == 0).all()
            np.testing.assert_allclose(
                result[row][step], expected @ VALUE[row, :kept], rtol=1e-4, atol=1e-6
            )


def test_keras_attention_is_the_unscaled_one():
    ours = ScaledDotProductAttention(scaled=False)(QUERY, X, VALUE)
    theirs = keras.layers.Attention()([QUERY, VALUE, X])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# --- Several heads -------------------------------------------------------------------------------


def twins(query_width: int, memory_width: int):
    """Our layer and Keras' with the same weights: 3 heads of 4."""
    ours = MultiHeadAttention(3, 4)
    ours.build((None, 2, query_width), (None, 7, memory_width))
    for weight in ours.weights:
        weight.assign(RNG.standard_normal(weight.shape))
    theirs = keras.layers.MultiHeadAttention(3, 4)
    theirs.build((None, 2, query_width), (None, 7, memory_width))
    copied = []
    for name in ("query", "key", "value"):
        copied.append(np.array(ours.kernels[name]).reshape(-1, 3, 4))
        copied.append(np.array(ours.biases[name]).reshape(3, 4))
    copied.append(np.array(ours.kernels["output"]).reshape(3, 4, query_width))
    copied.append(np.array(ours.biases["output"]))
    theirs.set_weights(copied)
    return ours, theirs


def test_cross_attention_equals_keras():
    ours, theirs = twins(5, 4)
    result, weights = ours(QUERY, VALUE, memory_mask=MASK, return_scores=True)
    expected, scores = theirs(
        QUERY, VALUE, attention_mask=MASK[:, None, :], return_attention_scores=True
    )
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights, scores, rtol=1e-3, atol=1e-6)
    assert (np.array(weights)[~np.broadcast_to(MASK[:, None, None], weights.shape)] == 0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_self_attention_equals_keras(causal):
    ours, theirs = twins(5, 5)
    result, weights = ours(X, X, causal=causal, return_scores=True)
    expected, scores = theirs(X, X, use_causal_mask=causal, return_attention_scores=True)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights, scores, rtol=1e-3, atol=1e-6)
    if causal:
        assert (
            np.array(weights)[..., np.triu_indices(7, 1)[0], np.triu_indices(7, 1)[1]] == 0
        ).all()


def test_several_heads_against_a_loop():
    ours, _ = twins(5, 4)
    result = np.array(ours(QUERY, VALUE))
    kernel = {name: np.array(value) for name, value in ours.kernels.items()}
    bias = {name: np.array(value) for name, value in ours.biases.items()}
    for row in range(3):
        joined = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            q = QUERY[row] @ kernel["query"][:, part] + bias["query"][part]
            k = VALUE[row] @ kernel["key"][:, part] + bias["key"][part]
            v = VALUE[row] @ kernel["value"][:, part] + bias["value"][part]
            weights = np.stack([softmax(k @ each / np.sqrt(4)) for each in q])
            joined.append(weights @ v)
        expected = np.concatenate(joined, axis=1) @ kernel["output"] + bias["output"]
        np.testing.assert_allclose(result[row], expected, rtol=1e-3, atol=1e-5)


def test_heads_must_exist():
    with pytest.raises(ValueError, match="heads"):
        MultiHeadAttention(0, 4)


# --- Why they are scaled -------------------------------------------------------------------------


def test_the_variance_of_the_scores_is_their_width():
    for width in (4, 64, 1024):
        plain = attention_scale.softmax_gradients(width, scaled=False)
        scaled = attention_scale.softmax_gradients(width, scaled=True)
        assert plain["variance"].mean() == pytest.approx(width, rel=0.15)
        assert scaled["variance"].mean() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_gradients_are_those_of_automatic_differentiation(scaled):
    import tensorflow as tf

    rng = np.random.default_rng([0, 16])
    query, key = rng.standard_normal((1, 16)), rng.standard_normal((1, attention_scale.KEYS, 16))
    query, key = tf.constant(query[0]), tf.constant(key[0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(query)
        scores = tf.linalg.matvec(key, query) / (4.0 if scaled else 1.0)
        weights = tf.nn.softmax(scores)
    found = attention_scale.softmax_gradients(16, scaled, draws=1)
    for name, source in {"by_scores": scores, "by_query": query}.items():
        norm = np.linalg.norm(tape.jacobian(weights, source))
        assert found[name] == pytest.approx(norm), name
    assert found["largest"] == pytest.approx(weights.numpy().max())


def test_medians_and_quartiles_say_where_the_scale_helps():
    measured = attention_scale.measure_scale((4, 1024))
    each = attention_scale.softmax_gradients(4, scaled=False)["by_query"]
    assert measured["unscaled_by_query_4"] == np.percentile(each, [25, 50, 75]).tolist()
    for name in ("by_scores", "by_query"):
        assert measured[f"unscaled_{name}_4"][1] > measured[f"scaled_{name}_4"][1]
        assert measured[f"unscaled_{name}_1024"][1] < measured[f"scaled_{name}_1024"][1] / 100
    told = attention_scale.scale_in_words(measured)
    assert "larger without the scale at d_k = 4 of 4, 1024." in told[-1]
    assert len(attention_scale.scale_figure(measured).axes) == 3
