"""Forecasts that need no network, and published figures of the same protocol.

All take windows (n, channels, look_back) and return (n, channels, horizon).
"""

from dataclasses import dataclass

import numpy as np

PENALTIES = 10.0 ** np.arange(-2, 7)
"""Of the ridge regression; one is chosen on validation."""
PUBLISHED = {  # mean squared error on ETTh1, horizons 96, 192, 336 and 720
    "Informer": (0.865, 1.008, 1.107, 1.181),
    "Autoformer": (0.449, 0.500, 0.521, 0.514),
    "iTransformer": (0.386, 0.441, 0.487, 0.503),
    "DLinear": (0.384, 0.443, 0.446, 0.504),
    "PatchTST": (0.385, 0.413, 0.440, 0.456),
    "SparseTSF": (0.362, 0.404, 0.435, 0.426),
    "SegRNN": (0.368, 0.408, 0.444, 0.446),
    "FITS": (0.372, 0.404, 0.427, 0.424),
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
        """Forecasts for `history`."""
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


def choose_ridge(train, validation, anchored: bool) -> tuple[Ridge, float]:
    """The ridge regression of the lowest validation error, and its penalty."""
    fitted = fit_ridges(train.history, train.future, anchored)
    penalty = min(
        fitted, key=lambda each: squared_error(fitted[each](validation.history), validation.future)
    )
    return fitted[penalty], penalty


def choose_period(validation) -> int:
    """The lag, 2 or more and no longer than the history, of the best seasonal naive forecast."""
    history, future = validation.history, validation.future
    return min(
        range(2, history.shape[-1] + 1),
        key=lambda lag: squared_error(seasonal_naive(history, future.shape[-1], lag), future),
    )


def floor_forecasts(
    parts: dict, period: int | None, anchored: bool, part: str = "test"
) -> dict[str, np.ndarray]:
    """Each floor's forecast for `part`; `period` None: chosen on validation.

    Histories of more than `SHORTER` steps have two ridge floors: a shorter one may be the better.
    """
    examined, horizon = parts[part], parts[part].future.shape[-1]
    lag = period or choose_period(parts["validation"])
    found = {
        "persistence": persistence(examined.history, horizon),
        "seasonal_naive": seasonal_naive(examined.history, horizon, lag),
    }
    full = examined.look_back
    for look_back in (full, SHORTER) if full > SHORTER else (full,):
        training, validation, shown = (
            each.shortened(look_back) for each in (parts["train"], parts["validation"], examined)
        )
        ridge, _ = choose_ridge(training, validation, anchored)
        name = "ridge" if look_back == full else f"ridge_{look_back}"
        found[name] = ridge(shown.history)
    return found
