"""ETTh1: seven hourly measurements of an electricity transformer, July 2016 to June 2018.

H. Zhou et al., "Informer" (AAAI 2021): six loads and, last, the oil temperature `OT`.
"""

from pathlib import Path

import numpy as np

import labkit
from labkit.files import read_text, verify

ORIGIN = labkit.Origin(
    name="ETTh1",
    credit="H. Zhou et al. (Informer)",
    licence="CC BY-ND 4.0",
    files=("ETTh1.csv",),
    page="https://github.com/zhouhaoyi/ETDataset",
    url="https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
    digest="sha256:f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    sample="generated hours with a daily and a weekly rhythm",
)
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURS = 17420
MONTH = 30 * 24
"""Hours of a month in the standard protocol."""


def load_etth1(choice: labkit.DataChoice = "auto") -> tuple[np.ndarray, str]:
    """The measurements, (17420, 7) float64 in the file's units, and the data source.

    `real` leaves with exit code 2 when the file can't be had; `auto` then warns and gives the
    sample, `sample_hours`.
    """
    return labkit.obtain(ORIGIN, choice, read_etth1, sample_hours)


def read_etth1(path: Path) -> tuple[np.ndarray, str]:
    """The measurements in `path`, (17420, 7) float64, and its SHA-256.

    Raises `labkit.DataError` for an absent, truncated or changed file, naming it.
    """
    digest = verify(path, ORIGIN.digest, text=True)
    rows, columns = read_text(path).splitlines(), range(1, 1 + len(COLUMNS))
    return np.loadtxt(rows, delimiter=",", skiprows=1, usecols=columns), digest


def sample_hours(hours: int = 20 * MONTH) -> np.ndarray:
    """A stand-in, (hours, 7): a daily and a weekly rhythm, drift and noise; seed 0."""
    rng = np.random.default_rng(0)
    time = np.arange(hours)[:, None]
    phase, weight = rng.uniform(0, 2 * np.pi, (2, 7)), rng.uniform(0.5, 1.5, (2, 7))
    daily = weight[0] * np.sin(2 * np.pi * time / 24 + phase[0])
    weekly = weight[1] * np.sin(2 * np.pi * time / 168 + phase[1])
    drift = np.cumsum(rng.normal(0, 0.03, (hours, 7)), axis=0)
    return daily + 0.5 * weekly + drift + rng.normal(0, 0.3, (hours, 7))
