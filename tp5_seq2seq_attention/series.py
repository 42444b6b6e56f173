"""The series that are forecast: three kinds, split in time or by series, scaled, cut into windows.

| name | what it is | from -> to | split |
| --- | --- | --- | --- |
| `synthetic` | the hand-out's: two sines, a trend, noise | 50 -> 10 steps | in time, with a gap |
| `monthly` | generated sales of many shops, seasons and trends | 36 -> 12 months | by shop |
| `etth1` | a transformer's seven measurements | 720 -> 96 to 720 hours | 12, 4 and 4 months |
| `etth1-ot` | its oil temperature alone | the same | the same |

A *window* is a stretch of `look_back` known values followed by `horizon` values to forecast. What
is forecast in one part is in no other: the parts are cut first, windows afterwards. On ETTh1 the
standard protocol lets the history of the first windows reach back into the part before: these
values are known when the forecast is made. Elsewhere the histories lie apart, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

import labkit
from tp5_seq2seq_attention.etth1 import COLUMNS, MONTH, load_etth1

SeriesName = Literal["synthetic", "monthly", "etth1", "etth1-ot"]

SYNTHETIC_STEPS = 2000
SYNTHETIC_NOISE = 0.1
"""Standard deviation of the noise: no forecast can have a mean squared error below 0.01."""
DRAWS = {"test": range(1, 21), "validation": range(21, 26)}
"""Seeds of the noise that a part is seen with. The mean square of one draw of 200 numbers is
0.0100 ± 0.0010, as much as what is to be measured; that of twenty is 0.0100 ± 0.0002."""
SHOPS, SHOP_MONTHS = 300, 96
AIR_PASSENGERS = (
    112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,
    115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140,
    145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166,
    171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194,
    196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201,
    204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229,
    242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278,
    284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306,
    315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336,
    340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337,
    360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405,
    417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432,
)  # fmt: skip
"""Airline passengers in thousands, each month of 1949 to 1960 (Box and Jenkins 1970, series G)."""


@dataclass(frozen=True)
class Shape:
    """How a kind of series is cut."""

    look_back: int
    horizon: int
    segment: int
    """Steps that the network reads and writes at once."""
    period: int | None
    """Of the seasonal naive forecast; None: the lag is chosen on validation."""
    anchored: bool = True
    """Whether the ridge floor forecasts differences to the last known value. That is right for a
    level that drifts, and wrong where the last value is as noisy as any other."""


SHAPES = {
    "synthetic": Shape(look_back=50, horizon=10, segment=1, period=None, anchored=False),
    "monthly": Shape(look_back=36, horizon=12, segment=1, period=12),
    "etth1": Shape(look_back=720, horizon=96, segment=48, period=24),
    "etth1-ot": Shape(look_back=720, horizon=96, segment=48, period=24),
}


@dataclass(frozen=True)
class Series(labkit.Data):
    """A kind of series, scaled by its training part and cut into windows.

    Of each part `x` is the history, (n, channels, look_back) float32, and `y` the future, (n,
    channels, horizon). Where they can they are views of the series, which cost no memory.
    """

    channels: tuple[str, ...]
    shape: Shape
    unit: float = 1.0
    """What an error of 1 on the scaled values is in the unit of the result: the training part's
    deviation for `synthetic`, whose noise is known in the series' own unit; 1 elsewhere."""
    air_passengers: labkit.Part | None = None
    """A real series beside the generated ones of `monthly`."""


def cut(stretches: Sequence[np.ndarray], shape: Shape, most: int | None = None) -> labkit.Part:
    """Every window, or the first `most`, of the `stretches` (T, channels) of one part.

    Raises `ValueError` where none fits.
    """
    length, steps = shape.look_back + shape.horizon, min(map(len, stretches))
    if steps < length:
        raise ValueError(
            f"a part has {steps} steps, a window needs {shape.look_back} + {shape.horizon}: "
            "choose a smaller --horizon"
        )
    found = [
        np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), length, axis=0)
        for values in stretches
    ]
    windows = (found[0] if len(found) == 1 else np.concatenate(found))[:most]
    return labkit.Part(windows[..., : shape.look_back], windows[..., shape.look_back :])


def synthetic_signal(steps: int = SYNTHETIC_STEPS) -> np.ndarray:
    """The hand-out's series without its noise: two sines and a trend, (steps,)."""
    time = np.arange(steps)
    return 0.5 * np.sin(time / 20) + 0.3 * np.sin(time / 10) + 0.2 * time / steps


def synthetic(draw: int = 0) -> np.ndarray:
    """The hand-out's series, (2000, 1): its signal, and noise of deviation 0.1 of seed `draw`."""
    noise = np.random.default_rng(draw).normal(0, SYNTHETIC_NOISE, SYNTHETIC_STEPS)
    return (synthetic_signal() + noise)[:, None]


def time_borders(name: SeriesName, steps: int, shape: Shape) -> dict[str, tuple[int, int]]:
    """First step and step after the last one of each part.

    `synthetic`: training takes 70 %; a gap of one window lies before validation (10.5 to 13.5 % of
    the steps) and before test. ETTh1: 12, 4 and 4 months of 30 days; validation and test begin
    `look_back` hours earlier, in the part before, so that their first forecast is for the first
    hour of their own: all windows of the standard protocol.
    """
    window = shape.look_back + shape.horizon
    if name == "synthetic":
        first, second = int(0.70 * steps), int(0.85 * steps)
        return {
            "train": (0, first),
            "validation": (first + window, second + window // 2),
            "test": (second + window // 2 + window, steps),
        }
    return {
        "train": (0, 12 * MONTH),
        "validation": (12 * MONTH - shape.look_back, 16 * MONTH),
        "test": (16 * MONTH - shape.look_back, 20 * MONTH),
    }


def monthly_sales(shops: int = SHOPS, months: int = SHOP_MONTHS) -> np.ndarray:
    """Logarithms of generated monthly sales, (shops, months): season, trend, noise; seed 0.

    Each shop has its own yearly profile, made of three harmonics, a growth rate that changes
    slowly, noise that lasts (an AR(1) of 0.6) and noise that does not.
    """
    rng = np.random.default_rng(0)
    time = np.arange(months)
    angle = 2 * np.pi * np.arange(1, 4)[:, None] * time / 12  # (3, months)
    strength = rng.normal(0, [[0.25], [0.15], [0.08]], (shops, 3, 1))
    phase = rng.uniform(0, 2 * np.pi, (shops, 3, 1))
    season = (strength * np.sin(angle + phase)).sum(axis=1)
    growth = rng.normal(0.006, 0.006, (shops, 1)) + 0.0015 * rng.normal(
        size=(shops, months)
    ).cumsum(1)
    lasting = np.zeros((shops, months))
    for month in range(1, months):
        lasting[:, month] = 0.6 * lasting[:, month - 1] + rng.normal(0, 0.05, shops)
    level = rng.normal(5, 1, (shops, 1))
    return level + season + growth.cumsum(1) + lasting + rng.normal(0, 0.03, (shops, months))


def load(
    choice: labkit.DataChoice, smoke: bool, name: SeriesName, horizon: int | None = None
) -> Series:
    """The series `name`, cut into windows with `horizon` steps to forecast, or its usual number.

    `choice` matters for ETTh1 only: the others are generated. `smoke` keeps 64 windows of each
    part, and 60 shops. Raises `ValueError` for a horizon that no window fits or that is no multiple
    of the segment.
    """
    shape = replace(SHAPES[name], horizon=horizon or SHAPES[name].horizon)
    if shape.horizon % shape.segment:
        raise ValueError(
            f"--horizon must be a multiple of {shape.segment} for {name}, got {shape.horizon}"
        )
    if name == "monthly":
        return _monthly(shape, smoke)
    source, channels = f"simulated:{name}", (name,)
    if name == "synthetic":
        values = synthetic()
    else:
        values, source = load_etth1(choice)
        channels = COLUMNS if name == "etth1" else COLUMNS[-1:]
        values = values[:, -len(channels) :]
    borders = time_borders(name, len(values), shape)
    start, stop = borders["train"]
    mean, deviation = values[start:stop].mean(axis=0), values[start:stop].std(axis=0)
    parts = {}
    for part, (first, last) in borders.items():
        seen = [values]
        if name == "synthetic" and part in DRAWS:
            seen = [synthetic(draw) for draw in DRAWS[part]]
        stretches = [(each[first:last] - mean) / deviation for each in seen]
        parts[part] = cut(stretches, shape, 64 if smoke else None)
    unit = float(deviation[0]) if name == "synthetic" else 1.0
    return Series(source, **parts, channels=channels, shape=shape, unit=unit)


def _monthly(shape: Shape, smoke: bool) -> Series:
    """Windows of shops that are disjoint between the parts, and of the airline passengers.

    Every window is scaled alone, to the mean 0 and deviation 1 of its history: nothing is
    fitted, and an error of 1 is a shop's own deviation.
    """
    sales = monthly_sales(60 if smoke else SHOPS)
    first, second = int(0.7 * len(sales)), int(0.85 * len(sales))
    parts = {}
    for part, rows in (
        ("train", sales[:first]),
        ("validation", sales[first:second]),
        ("test", sales[second:]),
        ("air_passengers", np.log(np.array([AIR_PASSENGERS], float))),
    ):
        windows = cut([row[:, None] for row in rows], shape, 64 if smoke else None)
        mean, deviation = windows.x.mean(-1, keepdims=True), windows.x.std(-1, keepdims=True)
        x, y = (windows.x - mean) / deviation, (windows.y - mean) / deviation
        parts[part] = labkit.Part(x, y)
    return Series("simulated:monthly", channels=("log sales",), shape=shape, **parts)
