"""Forecasts that need no network, and published figures of the same protocol.

All take histories (n, channels, look_back) and return (n, channels, horizon).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from labkit import Part
from tp5_seq2seq_attention.etth1 import COLUMNS
from tp5_seq2seq_attention.series import Series

Floor = Callable[[np.ndarray], np.ndarray]
"""Forecasts (n, channels, horizon) from histories (n, channels, look_back)."""

PENALTIES = 10.0 ** np.arange(-2, 10.5, 0.5)
"""Of the ridge regression; one is chosen on validation, and none at an end of the grid."""
PUBLISHED = {  # mean squared error on ETTh1, horizons 96, 192, 336 and 720; hours of history
    "Informer (96)": (0.865, 1.008, 1.107, 1.181),
    "Autoformer (96)": (0.449, 0.500, 0.521, 0.514),
    "iTransformer (96)": (0.386, 0.441, 0.487, 0.503),
    "SegRNN (96)": (0.368, 0.408, 0.444, 0.446),
    "DLinear (336)": (0.384, 0.443, 0.446, 0.504),
    "PatchTST (512)": (0.385, 0.413, 0.440, 0.456),
    "SparseTSF (720)": (0.362, 0.404, 0.435, 0.426),
    "FITS (up to 720)": (0.372, 0.404, 0.427, 0.424),
}
"""From the tables of the DLinear, SegRNN, SparseTSF and FITS repositories; those of DLinear and
PatchTST after the loader's mistake of leaving out the last test batch was mended (FITS)."""
HORIZONS = (96, 192, 336, 720)
SHORTER = 336
"""History steps of a second ridge floor where the network has more: two weeks of hours, as for
many of the published figures."""


def persistence(history: np.ndarray, horizon: int) -> np.ndarray:
    """The last known value, again and again."""
    return np.repeat(history[..., -1:], horizon, axis=-1)


def seasonal_naive(history: np.ndarray, horizon: int, period: int) -> np.ndarray:
    """The last `period` known values, again and again."""
    return history[..., -period:][..., np.arange(horizon) % period]


@dataclass(frozen=True)
class Ridge:
    """One linear map from the history to the future, the same for every channel."""

    weights: np.ndarray
    """(look_back, horizon)."""
    anchored: bool
    """Whether the last known value is subtracted before and added after it, as in NLinear (Zeng et
    al., AAAI 2023): right at any level, but the last value's noise is in every forecast."""

    def __call__(self, history: np.ndarray) -> np.ndarray:
        """Forecasts for `history`, of which it reads its own number of last steps."""
        history = history[..., -len(self.weights) :]
        last = history[..., -1:] * self.anchored
        return (history - last) @ self.weights + last


def fit_ridges(history: np.ndarray, future: np.ndarray, anchored: bool) -> dict[float, Ridge]:
    """Ridge regressions in closed form, one for each of `PENALTIES`.

    W = (X'X + penalty I)^-1 X'Y for all penalties from one eigendecomposition of X'X.
    """
    last = history[..., -1:].astype(np.float64) * anchored
    x = (history - last).reshape(-1, history.shape[-1])
    y = (future - last).reshape(-1, future.shape[-1])
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ y)
    return {
        float(penalty): Ridge(
            (vectors @ (projected / (values + penalty)[:, None])).astype(np.float32), anchored
        )
        for penalty in PENALTIES
    }


def squared_error(forecast: np.ndarray, future: np.ndarray) -> float:
    """Mean squared error over windows, channels and steps."""
    return float(np.mean((forecast - future) ** 2, dtype=np.float64))


def shortened(part: Part, look_back: int) -> Part:
    """Windows with the last `look_back` steps of history, and those that begin before the first.

    A shorter history leaves room for more windows: all of them lie within the first one of `part`,
    whose windows follow each other step by step in one series.
    """
    steps = np.concatenate([part.x[0], part.y[0]], axis=-1)  # (channels, full + horizon)
    windows = np.lib.stride_tricks.sliding_window_view(
        steps, look_back + part.y.shape[-1], axis=-1
    ).swapaxes(0, 1)[: part.x.shape[-1] - look_back]
    return Part(
        np.concatenate([windows[..., :look_back], part.x[..., -look_back:]]),
        np.concatenate([windows[..., look_back:], part.y]),
    )


def choose_ridge(
    training: Part, validation: Part, look_back: int, anchored: bool
) -> tuple[Ridge, float]:
    """The ridge of the lowest validation error, from the last `look_back` steps; its penalty."""
    if look_back < training.x.shape[-1]:
        training = shortened(training, look_back)
    fitted = fit_ridges(training.x, training.y, anchored)
    penalty = min(fitted, key=lambda each: squared_error(fitted[each](validation.x), validation.y))
    return fitted[penalty], penalty


def choose_period(validation: Part) -> int:
    """The lag, 2 or more and no longer than the history, of the best seasonal naive forecast."""
    x, y = validation.x, validation.y
    return min(
        range(2, x.shape[-1] + 1),
        key=lambda lag: squared_error(seasonal_naive(x, y.shape[-1], lag), y),
    )


def fit_floors(data: Series) -> tuple[dict[str, Floor], dict[str, float]]:
    """Each floor by its name, and what was chosen for them on validation.

    Histories of more than `SHORTER` steps have two ridge floors: a shorter one may be the better.
    """
    horizon, full = data.shape.horizon, data.shape.look_back
    lag = data.shape.period or choose_period(data.validation)
    floors: dict[str, Floor] = {
        "persistence": partial(persistence, horizon=horizon),
        "seasonal_naive": partial(seasonal_naive, horizon=horizon, period=lag),
    }
    chosen = {} if data.shape.period else {"chosen_lag": float(lag)}
    for look_back in (full, SHORTER) if full > SHORTER else (full,):
        name = "ridge" if look_back == full else f"ridge_{look_back}"
        floors[name], chosen[f"chosen_penalty_of_{name}"] = choose_ridge(
            data.train, data.validation, look_back, data.shape.anchored
        )
    return floors, chosen


def published(data: Series, smoke: bool) -> dict[str, float]:
    """Published mean squared errors of the same test windows; none where there are none."""
    same = data.channels == COLUMNS and data.source.startswith("real") and not smoke
    if not same or data.shape.horizon not in HORIZONS:
        return {}
    return {name: row[HORIZONS.index(data.shape.horizon)] for name, row in PUBLISHED.items()}
