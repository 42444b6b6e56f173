"""Plots of forecasts, their errors and what the decoder looked back at."""

from __future__ import annotations

import numpy as np

from labkit import figures
from tp5_seq2seq_attention.forecast_metrics import attention_span, lead_time_errors
from tp5_seq2seq_attention.series import Series

SHOWN_PAST = 200
"""History steps that a forecast's plot shows at most."""


def attention_figure(weights: np.ndarray, segment: int, title: str) -> figures.Figure:
    """Heat map of `weights` (S, T), decoder step by encoder step, and the mean span of each row."""
    steps, length = weights.shape
    figure, (axis, right) = figures.subplots(1, 2, size=(11, 1.8 + 0.2 * min(20, max(6, steps))))
    image = axis.imshow(weights, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    ticks = np.unique(np.linspace(0, length - 1, 6).astype(int))
    axis.set_xticks(ticks, [f"{segment * (tick - length + 1)}" for tick in ticks])
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set(
        xlabel="encoder step (steps of the series before the forecast)",
        ylabel="decoder step", title=title,
    )  # fmt: skip
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="weight")
    found = attention_span(weights[None], segment)
    right.plot(np.arange(steps), found["span"], marker="o", label="steps that hold 90 %")
    right.plot(np.arange(steps), found["effective"], marker="o", label="exp(entropy)")
    right.axhline(length, color="0.6", linestyle=":", label="all of them")
    right.set(xlabel="decoder step", ylabel="encoder steps", title="Span", ylim=(0, 1.05 * length))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=8)
    return figure


def forecasts_figure(data: Series, arrays: dict[str, np.ndarray]) -> figures.Figure:
    """Four test windows from the first to the last: history, forecast, and what was measured."""
    test, unit = data.test, data.unit
    look_back, horizon = data.shape.look_back, data.shape.horizon
    past = min(look_back, SHOWN_PAST)
    figure, axes = figures.subplots(2, 2, size=(12, 6.4))
    channel = len(data.channels) - 1
    chosen = np.linspace(0, len(test) - 1, 4).astype(int)
    before, after = np.arange(-past + 1, 1), np.arange(1, horizon + 1)
    for axis, index in zip(np.ravel(axes), chosen, strict=True):
        axis.plot(before, test.x[index, channel, -past:] * unit, color="0.5", label="history")
        axis.plot(after, test.y[index, channel] * unit, color="black", label="measured")
        axis.plot(after, arrays["forecast"][index, channel] * unit, label="forecast")
        low, high = np.moveaxis(arrays["ends"][index, channel] * unit, -1, 0)
        axis.fill_between(after, low, high, color="C0", alpha=0.18, label="90 % interval")
        axis.plot(
            after, arrays["floor_ridge"][index, channel] * unit, "--", linewidth=1, label="ridge"
        )
        axis.set(title=f"{data.channels[channel]}, test window {index}", xlabel="step")
    np.ravel(axes)[0].legend(fontsize=8)
    return figure


def errors_figure(data: Series, arrays: dict[str, np.ndarray]) -> figures.Figure:
    """Mean squared error at each lead time, network and floors."""
    figure, axis = figures.subplots(size=(7, 4.2))
    forecasts = {"network": arrays["forecast"]} | {
        name.removeprefix("floor_").replace("_", " "): forecast
        for name, forecast in arrays.items()
        if name.startswith("floor_")
    }
    for index, (name, forecast) in enumerate(forecasts.items()):
        errors = lead_time_errors(forecast, data.test.y, data.unit)
        axis.plot(
            np.arange(1, len(errors) + 1), errors, label=name,
            marker="o" if len(errors) < 40 else None, linewidth=2.2 if index == 0 else 1.2,
        )  # fmt: skip
    axis.set(xlabel="lead time", ylabel="mean squared error", title="Test error by lead time")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return figure


def curves_figure(history: dict[str, list[float]]) -> figures.Figure:
    """Training loss, and free-running validation error."""
    figure, axes = figures.subplots(1, 2, size=(10, 3.8))
    for axis, name, title in zip(
        axes, ("loss", "val_mse"), ("Training loss", "Validation MSE, free-running"), strict=True
    ):
        axis.plot(np.arange(1, len(history[name]) + 1), history[name], marker=".")
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_all(
    data: Series, arrays: dict[str, np.ndarray], history: dict[str, list[float]]
) -> dict[str, figures.Figure]:
    """The figures of a training, by file name."""
    segment = data.shape.segment
    mean = arrays["attention"].mean(axis=0)
    middle = len(data.channels) * (len(data.test) // 2) - 1  # the last channel of a window
    return {
        "learning_curves": curves_figure(history),
        "forecasts": forecasts_figure(data, arrays),
        "error_by_step": errors_figure(data, arrays),
        "attention": attention_figure(mean, segment, "Attention, mean over test windows"),
        "attention_of_one": attention_figure(
            arrays["attention"][middle], segment, "Attention in one test window"
        ),
    }


def channels_figure(
    errors: dict[str, float], floor: dict[str, float], forgotten: dict[int, float]
) -> figures.Figure:
    """Error of each channel beside ridge's, and error against the length of the history."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4))
    places = np.arange(len(errors))
    left.bar(places - 0.2, list(errors.values()), 0.38, label="network")
    left.bar(places + 0.2, list(floor.values()), 0.38, label="ridge")
    left.set_xticks(places, [name.removeprefix("mse_") for name in errors])
    left.set(title="Test error by channel", ylabel="mean squared error")
    left.margins(y=0.3)  # room for the legend
    left.legend(fontsize=8)
    right.plot(list(forgotten), list(forgotten.values()), marker="o")
    right.set(xlabel="steps of the history that are left", ylabel="mean squared error")
    right.set(title="How far back it looks")
    right.set_ylim(0, 1.1 * max(forgotten.values()))
    return figure
