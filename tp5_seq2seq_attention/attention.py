"""Attention layers: the hand-out's, scaled dot products, several heads.

All are written in `keras.ops`, so that they run on every backend, and all give a padded position
the weight 0, exactly. `B` is the batch, `T` the length of the memory (what is attended to), `S` the
number of queries, `D` the width.

References: Bahdanau, Cho and Bengio (ICLR 2015) for additive scores; Vaswani et al. (NeurIPS 2017),
sections 3.2.1 and 3.2.2, for scaled dot products and several heads.
"""

from typing import Any, Literal

import keras
from keras import ops

PACKAGE = "tp5"
"""Under which the layers are registered, so that a saved model loads anywhere."""


def masked_softmax(scores: Any, mask: Any = None) -> Any:
    """Softmax over the last axis; where `mask` is False the weight is 0, exactly.

    `scores` is (..., T); `mask` is boolean and broadcasts to it. A row without any True gets 0
    everywhere. Keras' own layers add a large negative number instead, which leaves such a row with
    uniform attention on its padding. Computed in float32 at least: half precision has no such
    number.
    """
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if mask is None:
        return ops.softmax(scores, axis=-1)
    weights = ops.softmax(ops.where(mask, scores, -1e9), axis=-1)
    return ops.where(mask, weights, 0.0)  # exp(-1e9) is 0 already, except where all is masked


@keras.saving.register_keras_serializable(PACKAGE)
class SimpleAttention(keras.layers.Layer):
    """The hand-out's attention: one score a step, e = tanh(x W + b), a = softmax over time of e.

    Called on `x` (B, T, D) it returns the context, the sum of a x, (B, D), and the weights a,
    (B, T). With `values` (B, T, V) the context is the sum of a values, (B, V): the steps are scored
    by `x` and read from `values`.

    Its weights are the hand-out's: `att_weight` (D, 1), initialised "normal", and `att_bias`,
    zeros, with one number a step (T, 1) or, for sequences of any length, one for all.

    A tanh lies between -1 and 1, so that no step's weight can exceed e^2 / (e^2 + T - 1): 0.13 of
    50 steps. `gain` multiplies the tanh by a trainable number and so takes this bound away.
    """

    def __init__(
        self,
        bias: Literal["per_step", "shared"] = "per_step",
        gain: float | None = None,
        **options: Any,
    ) -> None:
        """A bias for each step, as handed out, or shared; `gain`, if given, is its first value.

        Raises `ValueError` for another `bias` or a `gain` that is not above 0.
        """
        super().__init__(**options)
        if bias not in ("per_step", "shared"):
            raise ValueError(f"bias must be per_step or shared, got {bias!r}")
        if gain is not None and gain <= 0:
            raise ValueError(f"gain must be above 0, got {gain}")
        self.bias, self.gain = bias, gain
        self.supports_masking = True

    def build(self, shape: tuple[int | None, ...], *_: Any) -> None:
        """Make the weights for inputs of `shape` (B, T, D).

        Raises `ValueError` for a bias per step where T is not fixed.
        """
        _, length, width = shape
        if self.bias == "per_step" and length is None:
            raise ValueError(
                "a bias for each step needs a fixed length: give Input((length, width)), "
                "or use SimpleAttention(bias='shared')"
            )
        steps = length if self.bias == "per_step" else 1
        self.att_weight = self.add_weight((width, 1), "normal", name="att_weight")
        self.att_bias = self.add_weight((steps, 1), "zeros", name="att_bias")
        if self.gain is not None:
            first = keras.initializers.Constant(self.gain)
            self.att_gain = self.add_weight((), first, name="att_gain")
        self.built = True

    def call(
        self, x: Any, values: Any = None, mask: Any = None, x_mask: Any = None
    ) -> tuple[Any, Any]:
        """Context and weights; steps where `mask` (B, T) is False have weight 0.

        Keras fills in `mask` where there is one tensor, and `x_mask` where there are two.
        """
        scores = ops.tanh(ops.matmul(x, self.att_weight) + self.att_bias)[..., 0]  # (B, T)
        if self.gain is not None:
            scores = self.att_gain * scores
        weights = masked_softmax(scores, x_mask if mask is None else mask)
        read = x if values is None else values
        context = ops.einsum("bt,btd->bd", ops.cast(weights, read.dtype), read)
        return context, weights

    def compute_mask(self, x: Any, mask: Any = None) -> tuple[None, None]:
        """No mask goes on: time is summed away."""
        return None, None

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {"bias": self.bias, "gain": self.gain}


def attend(query: Any, key: Any, value: Any, mask: Any = None, scaled: bool = True) -> Any:
    """softmax(Q K' / sqrt(D)) V and its weights (Vaswani et al., equation 1).

    `query` is (..., S, D), `key` (..., T, D), `value` (..., T, V); `mask` broadcasts to the scores'
    shape, (..., S, T). Returns (..., S, V) and (..., S, T). `scaled=False` leaves the division out.
    """
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))  # (..., S, T)
    if scaled:
        # For independent entries of variance 1, q.k has variance D: large scores saturate softmax.
        scores = scores / float(query.shape[-1]) ** 0.5
    weights = masked_softmax(scores, mask)
    return ops.matmul(ops.cast(weights, value.dtype), value), weights


@keras.saving.register_keras_serializable(PACKAGE)
class ScaledDotProductAttention(keras.layers.Layer):
    """Scaled dot-product attention without weights of its own.

    Keras' `Attention` is the same with `use_scale=False`, except that it does not divide by
    sqrt(D): it has to be told `score_mode`, and leaves the scale to the user.
    """

    def __init__(self, scaled: bool = True, **options: Any) -> None:
        """`scaled=False` leaves out the division by sqrt(D), to show what it is there for."""
        super().__init__(**options)
        self.scaled = scaled
        self.supports_masking = True

    def call(
        self,
        query: Any,
        key: Any,
        value: Any,
        query_mask: Any = None,
        key_mask: Any = None,
        value_mask: Any = None,
        return_scores: bool = False,
    ) -> Any:
        """(B, S, V) from `query` (B, S, D), `key` (B, T, D) and `value` (B, T, V).

        Positions where `key_mask` (B, T) is False have weight 0; the other masks are ignored. With
        `return_scores` also the weights, (B, S, T).
        """
        mask = None if key_mask is None else key_mask[:, None, :]
        result, weights = attend(query, key, value, mask, self.scaled)
        return (result, weights) if return_scores else result

    def compute_mask(self, query: Any, query_mask: Any = None) -> Any:
        """The queries' mask goes on."""
        return query_mask

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {"scaled": self.scaled}


@keras.saving.register_keras_serializable(PACKAGE)
class MultiHeadAttention(keras.layers.Layer):
    """Attention with several heads (Vaswani et al., section 3.2.2).

    Self-attention: `layer(x, x)`. Cross-attention: `layer(decoder, encoder)`. Each head has its own
    projections of queries, keys and values; the heads' results are joined and projected back.
    """

    def __init__(self, heads: int, head_width: int, **options: Any) -> None:
        """`heads` heads of `head_width` each, both 1 or more; `ValueError` otherwise."""
        super().__init__(**options)
        if heads < 1 or head_width < 1:
            raise ValueError(f"heads and head_width must be 1 or more, got {heads}, {head_width}")
        self.heads, self.head_width = heads, head_width
        self.supports_masking = True

    def build(self, query_shape: tuple[int | None, ...], memory_shape: tuple | None = None) -> None:
        """Make the four projections for widths D of the queries and M of the memory."""
        memory_shape = memory_shape or query_shape
        inner = self.heads * self.head_width
        widths = {
            "query": (query_shape[-1], inner),
            "key": (memory_shape[-1], inner),
            "value": (memory_shape[-1], inner),
            "output": (inner, query_shape[-1]),
        }
        self.kernels, self.biases = {}, {}
        for name, shape in widths.items():
            self.kernels[name] = self.add_weight(shape, "glorot_uniform", name=f"{name}_kernel")
            self.biases[name] = self.add_weight(shape[1:], "zeros", name=f"{name}_bias")
        self.built = True

    def _project(self, name: str, x: Any) -> Any:
        return ops.matmul(x, self.kernels[name]) + self.biases[name]

    def _split(self, x: Any) -> Any:
        """(B, T, heads * width) to (B, heads, T, width)."""
        batch, length, _ = ops.shape(x)
        x = ops.reshape(x, (batch, length, self.heads, self.head_width))
        return ops.transpose(x, (0, 2, 1, 3))

    def call(
        self,
        query: Any,
        memory: Any,
        query_mask: Any = None,
        memory_mask: Any = None,
        causal: bool = False,
        return_scores: bool = False,
    ) -> Any:
        """(B, S, D) from `query` (B, S, D) and `memory` (B, T, M).

        Positions where `memory_mask` (B, T) is False have weight 0. `causal` lets query s see the
        first s + 1 positions only. With `return_scores` also the weights, (B, heads, S, T).
        """
        mask = None if memory_mask is None else memory_mask[:, None, None, :]  # (B, 1, 1, T)
        if causal:
            steps, length = ops.shape(query)[1], ops.shape(memory)[1]
            seen = ops.arange(length)[None, :] <= ops.arange(steps)[:, None]  # (S, T)
            mask = seen if mask is None else ops.logical_and(mask, seen)
        found, weights = attend(
            self._split(self._project("query", query)),
            self._split(self._project("key", memory)),
            self._split(self._project("value", memory)),
            mask,
        )  # (B, heads, S, width), (B, heads, S, T)
        batch, _, steps, _ = ops.shape(found)
        joined = ops.reshape(ops.transpose(found, (0, 2, 1, 3)), (batch, steps, -1))
        result = self._project("output", joined)  # (B, S, D)
        return (result, weights) if return_scores else result

    def compute_mask(self, query: Any, query_mask: Any = None) -> Any:
        """The queries' mask goes on."""
        return query_mask

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {"heads": self.heads, "head_width": self.head_width}
