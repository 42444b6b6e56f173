"""What is measured of forecasts, their intervals and their attention."""

import keras
import numpy as np

from labkit import Part
from tp5_seq2seq_attention.floors import Floor, fit_floors
from tp5_seq2seq_attention.seq2seq_models import QUANTILES, free_running
from tp5_seq2seq_attention.series import SYNTHETIC_NOISE, Series

SPAN_SHARE = 0.9
"""The span is the number of steps that hold this share of the attention."""


def measure(
    forecaster: keras.Model, data: Series
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All test figures of free-running forecasts, and the arrays that the plots are drawn from.

    `forecast` (n, channels, horizon), `ends` of the calibrated intervals (n, channels, horizon, 2),
    `attention` (n channels, S, T), and each floor's forecast, `floor_<name>`.
    """
    validation, test, unit = data.validation, data.test, data.unit
    checked, _ = free_running(forecaster, validation.x)
    output, attention = free_running(forecaster, test.x)
    forecast, ends = output[..., 0], output[..., 1:]
    metrics = point_errors(forecast, test.y, unit)
    errors = point_errors(checked[..., 0], validation.y, unit)
    metrics |= {f"validation_{name}": value for name, value in errors.items()}
    by_lead_time = lead_time_errors(forecast, test.y, unit)
    metrics |= {"first_lead_time_mse": by_lead_time[0], "last_lead_time_mse": by_lead_time[-1]}

    raw = interval_metrics(ends, test.y, unit)
    metrics |= {f"raw_{name}": value for name, value in raw.items()}
    wider = widening(checked[..., 1:], validation.y)
    ends = np.stack([ends[..., 0] - wider, ends[..., 1] + wider], axis=-1)
    metrics |= interval_metrics(ends, test.y, unit)
    metrics["calibration_widening"] = wider.mean() * unit
    metrics |= span_metrics(attention, data.shape.segment)

    floors, chosen = fit_floors(data)
    arrays = {"forecast": forecast, "ends": ends, "attention": attention}
    arrays |= {f"floor_{name}": floor(test.x) for name, floor in floors.items()}
    for name in floors:
        errors = point_errors(arrays[f"floor_{name}"], test.y, unit)
        metrics |= {f"floor_{name}": errors["mse"], f"floor_{name}_mae": errors["mae"]}
    if data.channels == ("synthetic",):
        metrics["floor_noise"] = SYNTHETIC_NOISE**2
    if data.air_passengers is not None:
        metrics |= air_passengers(forecaster, data.air_passengers, floors)
    metrics |= chosen
    return {name: float(value) for name, value in metrics.items()}, arrays


def air_passengers(
    forecaster: keras.Model, part: Part, floors: dict[str, Floor]
) -> dict[str, float]:
    """Errors on a real series that training never saw, beside the floors' on the same."""
    forecasts = {"": free_running(forecaster, part.x)[0][..., 0]}
    forecasts |= {f"_{name}": floor(part.x) for name, floor in floors.items()}
    return {
        f"air_passengers{name}_mse": point_errors(forecast, part.y, 1)["mse"]
        for name, forecast in forecasts.items()
    }


def channel_errors(forecast: np.ndarray, data: Series) -> dict[str, float]:
    """Test mean squared error of each channel of `forecast`, such as `mse_ot`."""
    return {
        f"mse_{name.lower().replace(' ', '_')}": point_errors(
            forecast[:, index], data.test.y[:, index], data.unit
        )["mse"]
        for index, name in enumerate(data.channels)
    }


def point_errors(forecast: np.ndarray, future: np.ndarray, unit: float) -> dict[str, float]:
    """`mse` and `mae` over windows, channels and steps, both (n, channels, horizon)."""
    error = (forecast - future).astype(np.float64)
    return {
        "mse": float(np.mean(error**2) * unit**2),
        "mae": float(np.mean(np.abs(error)) * unit),
    }


def lead_time_errors(forecast: np.ndarray, future: np.ndarray, unit: float) -> np.ndarray:
    """Mean squared error at each lead time, (horizon,)."""
    return np.mean((forecast - future) ** 2, axis=(0, 1), dtype=np.float64) * unit**2


def widening(ends: np.ndarray, future: np.ndarray) -> np.ndarray:
    """How far to move the ends out so that 90 % of `future` lies between: (channels, horizon).

    Conformalised quantile regression (Romano, Patterson and Candes, NeurIPS 2019), for each channel
    and step from validation forecasts `ends` (n, channels, horizon, 2). Negative where the interval
    is too wide. Windows overlap, so that its guarantee for exchangeable samples does not hold here.
    """
    outside = np.maximum(ends[..., 0] - future, future - ends[..., 1])
    level = min(1.0, (QUANTILES[1] - QUANTILES[0]) * (1 + 1 / len(outside)))
    return np.quantile(outside, level, axis=0)


def interval_metrics(ends: np.ndarray, future: np.ndarray, unit: float) -> dict[str, float]:
    """`coverage` (0..1), mean `width` and mean interval score of `ends` (n, channels, horizon, 2).

    The score (Gneiting and Raftery, JASA 2007, section 6.2) is the width plus 2 / 0.1 of what lies
    outside: lower is better, and neither a wide nor a narrow interval can cheat.
    """
    low, high = ends[..., 0], ends[..., 1]
    below, above = np.maximum(low - future, 0), np.maximum(future - high, 0)
    penalty = 2 / (1 - (QUANTILES[1] - QUANTILES[0]))
    return {
        "coverage": float(np.mean((future >= low) & (future <= high))),
        "interval_width": float(np.mean(high - low) * unit),
        "interval_score": float(np.mean(high - low + penalty * (below + above)) * unit),
    }


def attention_span(weights: np.ndarray, segment: int = 1) -> dict[str, np.ndarray]:
    """For each decoder step, (S,), the mean over windows of four measures of `weights` (n, S, T).

    `distance`: mean distance from the last known step back to what is attended to, in steps of the
    series; `entropy` in nats; `effective`: exp(entropy), the number of steps over which uniform
    attention has this entropy; `span`: the fewest encoder steps that hold 90 % of the weight.
    `segment` is the number of the series' steps in an encoder step. Uniform attention has the
    distance (T - 1) / 2 segments and the entropy log T.
    """
    length = weights.shape[-1]
    weights = weights.astype(np.float64)
    back = segment * np.arange(length - 1, -1, -1)
    entropy = -np.sum(weights * np.log(np.maximum(weights, 1e-12)), axis=-1)
    held = np.cumsum(-np.sort(-weights, axis=-1), axis=-1)
    return {
        "distance": (weights @ back).mean(axis=0),
        "entropy": entropy.mean(axis=0),
        "effective": np.exp(entropy).mean(axis=0),
        "span": (1 + np.sum(held < SPAN_SHARE - 1e-9, axis=-1)).mean(axis=0),
    }


def span_metrics(weights: np.ndarray, segment: int = 1) -> dict[str, float]:
    """Means over decoder steps of `attention_span`, and what uniform attention would have."""
    length = weights.shape[-1]
    found = {
        f"attention_{name}": float(values.mean())
        for name, values in attention_span(weights, segment).items()
    }
    return found | {
        "attention_steps": float(length),
        "attention_span_of_uniform_attention": float(np.ceil(SPAN_SHARE * length - 1e-9)),
        "attention_distance_of_uniform_attention": segment * (length - 1) / 2,
    }
