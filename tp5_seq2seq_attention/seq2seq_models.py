"""The forecasters: a bidirectional LSTM reads, an LSTM with cross-attention writes.

`B` windows of `C` channels are `N = B C` series for the network, which treats every channel alike.
A series is read and written in segments of `G` steps: `T = look_back / G` are read and
`S = horizon / G` written. With G = 1 this is the hand-out's network; with longer segments, as in
SegRNN (Lin et al., arXiv 2308.11200), a month of hours is 15 steps for an LSTM instead of 720.

Two models share all weights:

- the *trainer* gets windows and, with teacher forcing, shows the decoder what came before;
- the *forecaster* gets the history only. It has no input through which the future could come.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import labkit
from tp5_seq2seq_attention.attention import MultiHeadAttention

PACKAGE = "tp5"
QUANTILES = (0.05, 0.95)
"""Ends of the forecast's interval, which should hold 90 % of what happens."""
OUTPUTS = 1 + len(QUANTILES)
"""Of each step: the forecast, then the ends of its interval."""


@dataclass(frozen=True)
class Plan:
    """What a network is built from."""

    look_back: int
    horizon: int
    segment: int
    channels: int
    units: int
    """Of each direction of the encoder; the decoder has twice as many."""
    heads: int
    dropout: float
    decoder: str
    """`direct`: the decoder is told which step it writes. Others: it is told what came before."""
    normalise: str
    """Of each window: `none`, `last` (last value 0) or `instance` (mean 0, deviation 1)."""
    linear: bool
    """Whether a linear map from the history to the future is added; `direct` only."""


@keras.saving.register_keras_serializable(PACKAGE)
class Normalise(layers.Layer):
    """Level and scale of each series, from its history alone.

    `last` is NLinear's (Zeng et al., AAAI 2023), `instance` RevIN's without its trainable part (Kim
    et al., ICLR 2022).
    """

    def __init__(self, how: str, **options: Any) -> None:
        """`how` is none, last or instance."""
        super().__init__(**options)
        self.how = how

    def call(self, history: Any) -> tuple[Any, Any]:
        """Level and scale, (N, 1) each, of `history` (N, look_back)."""
        zero = ops.zeros_like(history[:, :1])
        if self.how == "last":
            return history[:, -1:], zero + 1
        if self.how == "instance":
            scale = ops.std(history, axis=1, keepdims=True)
            return ops.mean(history, axis=1, keepdims=True), scale + 1e-3
        return zero, zero + 1

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {"how": self.how}


@keras.saving.register_keras_serializable(PACKAGE)
class Decoder(layers.Layer):
    """An LSTM that looks back at all that was read before it writes each segment.

    Its state at step s asks, the encoder's states answer (cross-attention), and both together give
    the segment (Luong et al., EMNLP 2015). The interval's ends come from a layer of their own
    behind a stopped gradient: they describe the forecast and leave it as it is.
    """

    def __init__(
        self,
        steps: int,
        segment: int,
        units: int,
        heads: int,
        direct: bool,
        channels: int,
        dropout: float,
        **options: Any,
    ) -> None:
        """Write `steps` segments of `segment` values with `units` units and `heads` heads."""
        super().__init__(**options)
        self.steps, self.segment, self.units, self.heads = steps, segment, units, heads
        self.direct, self.channels, self.rate = direct, channels, dropout
        self.cell = layers.LSTMCell(units, name="cell")
        self.attention = MultiHeadAttention(heads, units // heads, name="attention")
        self.dropout = layers.Dropout(dropout, name="dropout")
        self.merge = layers.Dense(units, "tanh", name="merge")
        self.value = layers.Dense(segment, name="value")
        self.ends = layers.Dense(segment * len(QUANTILES), name="ends")
        self.chance = keras.random.SeedGenerator()

    def build(self, state_shape: tuple, memory_shape: tuple, *_: Any) -> None:
        """Make the weights for a memory of `memory_shape` (N, T, D)."""
        self.sampling_rate = self.add_weight(
            (), "zeros", trainable=False, name="sampling_rate"
        )  # share of the steps that see the decoder's own output in training
        told = self.segment
        if self.direct:
            told = self.units // 2
            self.step_vectors = self.add_weight(
                (self.steps, told), keras.initializers.RandomNormal(stddev=0.3), name="step_vectors"
            )
        if self.channels > 1:
            self.channel_vectors = self.add_weight(
                (self.channels, self.units // 2),
                keras.initializers.RandomNormal(stddev=0.3),
                name="channel_vectors",
            )
            told += self.units // 2
        self.cell.build((None, told))
        self.attention.build((None, 1, self.units), memory_shape)
        joined = (None, 1, 2 * self.units)
        self.merge.build(joined)
        self.value.build((None, 1, self.units))
        self.ends.build((None, 1, self.units))
        self.built = True

    def _channel_vectors(self, series: Any) -> Any:
        """The vector of each series' channel, (N, units / 2): all channels of a window in turn."""
        windows = ops.shape(series)[0] // self.channels
        return ops.tile(self.channel_vectors, (windows, 1))

    def _write(self, states: Any, memory: Any, training: bool) -> tuple[Any, Any, Any]:
        """Segments (N, s, G), their ends (N, s, 2 G) and weights (N, s, T) for (N, s, units)."""
        context, weights = self.attention(states, memory, return_scores=True)
        joined = ops.concatenate([states, context], axis=-1)  # (N, s, 2 units)
        features = self.dropout(self.merge(joined), training=training)  # (N, s, units)
        ends = self.ends(ops.stop_gradient(features))
        return self.value(features), ends, ops.mean(weights, axis=1)

    def call(
        self, state: Any, memory: Any, first: Any, future: Any = None, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Forecast (N, S G), distances of the interval's ends (N, S G, 2), weights (N, S, T).

        `state` (N, units) is where the LSTM starts, `memory` (N, T, D) what it looks back at,
        `first` (N, G) the last known segment, `future` (N, S G) the true values for teacher
        forcing. Without `future` every step sees what the decoder wrote before. The attention
        weights are the mean over the heads.
        """
        hidden, carry = state, ops.zeros_like(state)
        extra = [self._channel_vectors(state)] if self.channels > 1 else []
        shown, written, states = first, [], []
        for step in range(self.steps):
            if self.direct:
                shown = ops.zeros_like(state[:, : self.units // 2]) + self.step_vectors[step]
            told = ops.concatenate([shown, *extra], axis=-1) if extra else shown
            hidden, (hidden, carry) = self.cell(told, [hidden, carry])  # (N, units)
            states.append(hidden)
            if self.direct:  # nothing that is written is read: all is written at once, below
                continue
            written.append(self._write(hidden[:, None], memory, training))
            shown = written[-1][0][:, 0]  # (N, G)
            if future is not None:
                true = future[:, step * self.segment : (step + 1) * self.segment]
                shown = self._mixed(true, shown) if training else true
        if self.direct:
            written = [self._write(ops.stack(states, axis=1), memory, training)]
        value, ends, weights = (
            ops.concatenate(each, axis=1) for each in zip(*written, strict=True)
        )
        length = self.steps * self.segment
        ends = ops.reshape(ends, (-1, length, len(QUANTILES)))
        return ops.reshape(value, (-1, length)), ends, weights

    def _mixed(self, true: Any, own: Any) -> Any:
        """Scheduled sampling (Bengio et al., NeurIPS 2015): a coin for each series."""
        coin = keras.random.uniform((ops.shape(true)[0], 1), seed=self.chance)
        return ops.where(coin < self.sampling_rate, own, true)

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {
            "steps": self.steps,
            "segment": self.segment,
            "units": self.units,
            "heads": self.heads,
            "direct": self.direct,
            "channels": self.channels,
            "dropout": self.rate,
        }


def build(plan: Plan) -> tuple[keras.Model, keras.Model]:
    """Trainer and forecaster, which share their weights.

    The trainer turns windows (B, C, look_back + horizon) into forecasts (B, C, horizon, 3); the
    forecaster turns histories (B, C, look_back) into a dictionary: `forecast`, the same, and
    `attention` (B C, S, T). Raises `ValueError` where a length is no multiple of the segment.
    """
    look_back, horizon, segment, channels = (
        plan.look_back, plan.horizon, plan.segment, plan.channels,
    )  # fmt: skip
    if look_back % segment or horizon % segment:
        raise ValueError(f"{look_back} and {horizon} must be multiples of the segment, {segment}")
    if plan.linear and plan.decoder != "direct":
        raise ValueError("a linear map goes with the direct decoder: others read what they write")
    read_steps, write_steps = look_back // segment, horizon // segment
    normalise = Normalise(plan.normalise, name="normalise")
    embed = layers.Dense(plan.units, "relu", name="embed") if segment > 1 else None
    encoder = layers.Bidirectional(
        layers.LSTM(plan.units, return_sequences=True, return_state=True), name="encoder"
    )
    bridge = layers.Dense(2 * plan.units, "tanh", name="bridge")
    dropout = layers.Dropout(plan.dropout, name="memory_dropout")
    linear = layers.Dense(horizon, use_bias=False, name="linear") if plan.linear else None
    direct = plan.decoder == "direct"
    decoder = Decoder(
        write_steps, segment, 2 * plan.units, plan.heads, direct, channels, plan.dropout,
        name="decoder",
    )  # fmt: skip

    def forecast(history: Any, future: Any = None) -> tuple[Any, Any]:
        series = ops.reshape(history, (-1, look_back))  # (N, look_back)
        level, scale = normalise(series)  # (N, 1)
        scaled = (series - level) / scale
        segments = ops.reshape(scaled, (-1, read_steps, segment))  # (N, T, G)
        memory, forward, _, backward, _ = encoder(embed(segments) if embed else segments)
        state = bridge(ops.concatenate([forward, backward], axis=-1))  # (N, 2 units)
        memory = dropout(memory)  # (N, T, 2 units)
        if future is not None:
            future = (ops.reshape(future, (-1, horizon)) - level) / scale
        given = {} if future is None else {"future": future}
        value, ends, weights = decoder(state, memory, segments[:, -1], **given)
        if linear:
            value = value + linear(scaled)
        value = (value * scale + level)[..., None]  # (N, horizon, 1)
        ends = ops.stop_gradient(value) + ends * scale[..., None]  # (N, horizon, 2)
        result = ops.concatenate([value, ends], axis=-1)
        return ops.reshape(result, (-1, channels, horizon, OUTPUTS)), weights

    history = keras.Input((channels, look_back), name="history")
    result, weights = forecast(history)
    forecaster = keras.Model(history, {"forecast": result, "attention": weights})
    window = keras.Input((channels, look_back + horizon), name="window")
    seen, future = window[..., :look_back], window[..., look_back:]
    shown, _ = forecast(seen) if direct else forecast(seen, future)
    return keras.Model(window, shown), forecaster


def load_forecaster(path: Path) -> keras.Model:
    """A saved forecaster; its layers are registered by this module."""
    return labkit.load_model(path)


def free_running(forecaster: keras.Model, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts (n, C, horizon, 3) and attention (n C, S, T) from histories (n, C, look_back)."""
    found = forecaster.predict(np.ascontiguousarray(history), batch_size=256, verbose=0)
    return found["forecast"], found["attention"]


@keras.saving.register_keras_serializable(PACKAGE)
class ForecastLoss(keras.losses.Loss):
    """Error of the forecast, and pinball loss of its interval's ends (Koenker and Bassett 1978).

    `y_true` is (B, C, horizon), `y_pred` (B, C, horizon, 3). `point` is `mse`, `mae`, or `huber`
    with its corner at 1.
    """

    def __init__(self, point: str = "mse", name: str = "forecast_loss", **options: Any) -> None:
        """Raises `ValueError` for another `point`."""
        super().__init__(name=name, **options)
        if point not in ("mse", "mae", "huber"):
            raise ValueError(f"point must be mse, mae or huber, got {point!r}")
        self.point = point

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each window and channel, (B, C)."""
        error = y_true - y_pred[..., 0]
        size = ops.abs(error)
        if self.point == "mse":
            loss = error**2
        elif self.point == "mae":
            loss = size
        else:
            loss = ops.where(size < 1, 0.5 * error**2, size - 0.5)
        for place, quantile in enumerate(QUANTILES, 1):
            miss = y_true - y_pred[..., place]
            loss = loss + ops.maximum(quantile * miss, (quantile - 1) * miss)
        return ops.mean(loss, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What the constructor was given, for saving."""
        return super().get_config() | {"point": self.point}
