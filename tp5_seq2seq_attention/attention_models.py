"""The networks that `attention_exercise.py` compares: words in, a label out.

`B` is the batch, `T` the length in words. All have the same word vectors and the same width. Each
returns a dictionary: `label` (B, labels), and `weights` (B, T) where there is attention.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import keras
from keras import layers, ops

from tp5_seq2seq_attention.attention import ScaledDotProductAttention, SimpleAttention
from tp5_seq2seq_attention.grammar import WORDS

WORD_WIDTH, STATE_WIDTH = 32, 64
FIRST_GAIN = 8.0
"""Of the scores: e^16 between the largest and the smallest weight, enough for any length here."""


def _words(length: int | None) -> tuple[Any, Any]:
    """Numbers of words, 0 for padding, and their vectors, which carry the mask of the padding."""
    tokens = keras.Input((length,), dtype="int32", name="tokens")  # (B, T)
    return tokens, layers.Embedding(len(WORDS), WORD_WIDTH, mask_zero=True)(tokens)  # (B, T, 32)


def _label(features: Any, labels: int) -> Any:
    """Probabilities of the labels, after one hidden layer."""
    hidden = layers.Dense(STATE_WIDTH, "relu")(features)  # (B, 64)
    return layers.Dense(labels, "softmax", name="label")(hidden)  # (B, labels)


def build_mean(length: int | None, labels: int, asks: bool = False) -> keras.Model:
    """The mean of the word vectors: a bag of words, without any order."""
    tokens, vectors = _words(length)
    mean = layers.GlobalAveragePooling1D()(vectors)  # (B, 32), padding left out
    return keras.Model(tokens, {"label": _label(mean, labels)})


def build_gru(length: int | None, labels: int, asks: bool = False) -> keras.Model:
    """A GRU's last state: all that it remembers at the end."""
    tokens, vectors = _words(length)
    state = layers.GRU(STATE_WIDTH)(vectors)  # (B, 64)
    return keras.Model(tokens, {"label": _label(state, labels)})


def build_handout(length: int, labels: int, asks: bool = False) -> keras.Model:
    """The hand-out's: GRU, then `SimpleAttention` with a bias for each step and no gain."""
    tokens, vectors = _words(length)
    states = layers.GRU(STATE_WIDTH, return_sequences=True)(vectors)  # (B, T, 64)
    context, weights = SimpleAttention(name="attention")(states)  # (B, 64), (B, T)
    return keras.Model(tokens, {"label": _label(context, labels), "weights": weights})


def build_attention(
    length: int | None, labels: int, asks: bool = False, read: Literal["states", "pairs"] = "pairs"
) -> keras.Model:
    """A GRU says where to look; what is read there are its states, or pairs of words.

    A state knows all words before it, so that the place of the weight need not be the place of the
    evidence. A pair knows two words: the weight must lie where they stand. With `asks` the
    sentence's end asks for one of many answers: its last state is the query of scaled dot products.
    Otherwise `SimpleAttention` with a gain scores the states.
    """
    tokens, vectors = _words(length)
    states, last = layers.GRU(STATE_WIDTH, return_sequences=True, return_state=True)(vectors)
    values = states  # (B, T, 64)
    if read == "pairs":  # each word with the one before it
        before = ops.pad(vectors[:, :-1], ((0, 0), (1, 0), (0, 0)))  # (B, T, 32)
        pairs = ops.concatenate([before, vectors], axis=-1)  # (B, T, 64)
        values = layers.Dense(STATE_WIDTH, "relu")(pairs)  # (B, T, 64)
    if asks:
        query = layers.Reshape((1, STATE_WIDTH))(layers.Dense(STATE_WIDTH)(last))  # (B, 1, 64)
        key = layers.Dense(STATE_WIDTH)(states)  # (B, T, 64)
        found, weights = ScaledDotProductAttention(name="attention")(
            query, key, values, return_scores=True
        )  # (B, 1, 64), (B, 1, T)
        context, weights = layers.Flatten()(found), weights[:, 0]  # (B, 64), (B, T)
    else:
        attention = SimpleAttention("shared", FIRST_GAIN, name="attention")
        context, weights = attention(states, values)  # (B, 64), (B, T)
    return keras.Model(tokens, {"label": _label(context, labels), "weights": weights})


BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "mean": build_mean,
    "gru": build_gru,
    "handout": build_handout,
    "attention_states": partial(build_attention, read="states"),
    "attention_pairs": build_attention,
}
