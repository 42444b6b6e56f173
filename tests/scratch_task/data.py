"""Points in a square, inside a ring or not: real ones from a file, or a generated sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import labkit
from labkit.files import UNREADABLE, DataError, Origin, obtain, verify

ORIGIN = Origin(
    name="Ring points",
    credit="nobody",
    licence="CC0 1.0",
    files=("ring_points.npz",),
    page="https://example.org/ring_points",
    digest="sha256:" + "0" * 64,
    sample="2,000 generated points",
)


def load(choice: labkit.DataChoice = "auto", smoke: bool = False) -> labkit.Data:
    """60, 20 and 20 % of the points, in their order, which is random."""
    (x, y), source = obtain(ORIGIN, choice, read, sample)
    if smoke:
        x, y = x[:400], y[:400]
    first, second = int(0.6 * len(x)), int(0.8 * len(x))
    parts = (slice(0, first), slice(first, second), slice(second, None))
    return labkit.Data(source, *(labkit.Part(x[part], y[part]) for part in parts))


def read(path: Path) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Points (n, 2) float32 and labels (n,), and the file's SHA-256. Raises `DataError`."""
    digest = verify(path, ORIGIN.digest)
    try:
        with np.load(path, allow_pickle=False) as file:
            return (file["x"], file["y"]), digest
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error


def sample() -> tuple[np.ndarray, np.ndarray]:
    """2,000 points in -1..1, (n, 2), and 1 where their distance from 0 is 0.4 to 0.8; seed 0."""
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2)).astype(np.float32)
    radius = np.hypot(x[:, 0], x[:, 1])
    return x, ((radius > 0.4) & (radius < 0.8)).astype(np.float32)
