"""Signatures of writers who don't exist: the sample, when no real ones can be had.

A writer is a few strokes, a slant and a pen. A genuine signature repeats the strokes as a hand
does, quickly and nearly alike. A forger has read them from another's paper a little wrong, repeats
that less steadily, and the slow pen trembles.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

SIZE = (120, 260)
"""Of a generated picture, in pixels."""
OVERSAMPLING = 3
GENUINE_SPREAD, FORGED_SPREAD = 0.035, 0.04
"""Standard deviation of a point's place, as a share of the signature's height: from one signature
to the next, and between the writer's and a forger's idea of it."""
TREMOR = 0.012
"""Of a forger's line, likewise."""


def sample(writers: int = 15, genuine: int = 16, forged: int = 6) -> list[tuple]:
    """(writer, hand, grey picture (120, 260) uint8) of each signature; seed 0.

    Two forgers, hands 1 and 2, make `forged` each: a forger's idea of the signature stays.
    """
    found = []
    for writer in range(writers):
        rng = np.random.default_rng([0, writer])
        name = style(rng)
        found += [(writer, 0, sign(name, False, rng)) for _ in range(genuine)]
        for hand in (1, 2):
            traced = misread(name, rng)
            found += [(writer, hand, sign(traced, True, rng)) for _ in range(forged)]
    return found


def style(rng: np.random.Generator) -> dict:
    """A writer: strokes as (points, 2) in units of the height, width of the pen, slant."""
    strokes, x = [], 0.0
    for _ in range(rng.integers(3, 6)):
        points = rng.integers(4, 8)
        steps = rng.uniform(0.02, 0.28, points)
        strokes.append(np.stack([x + np.cumsum(steps), rng.uniform(0, 1, points)], axis=1))
        x = strokes[-1][-1, 0] - rng.uniform(-0.1, 0.15)
    return {"strokes": strokes, "pen": rng.uniform(1.5, 3.5), "slant": rng.uniform(-0.5, 0.3)}


def misread(name: dict, rng: np.random.Generator) -> dict:
    """The writer's signature as a forger has it in mind: every point a little off."""
    strokes = [points + rng.normal(0, FORGED_SPREAD, points.shape) for points in name["strokes"]]
    return name | {"strokes": strokes, "slant": name["slant"] + rng.normal(0, FORGED_SPREAD)}


def sign(name: dict, forged: bool, rng: np.random.Generator) -> np.ndarray:
    """One signature, (120, 260) uint8, dark on white."""
    spread = 1.2 * GENUINE_SPREAD if forged else GENUINE_SPREAD
    slant = name["slant"] + rng.normal(0, 2 * spread)
    lines = []
    for points in name["strokes"]:
        moved = points + rng.normal(0, spread, points.shape)
        line = smooth(moved)
        if forged:
            line = line + tremor(len(line), rng)
        lines.append(np.stack([line[:, 0] - slant * line[:, 1], line[:, 1]], axis=1))
    everything = np.concatenate(lines)
    low, high = everything.min(axis=0), everything.max(axis=0)
    height, width = SIZE[0] * OVERSAMPLING, SIZE[1] * OVERSAMPLING
    scale = min(0.85 * width / (high[0] - low[0]), 0.8 * height / (high[1] - low[1]))
    scale *= rng.uniform(0.8, 1.0)
    picture = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(picture)
    pen = max(1, round(OVERSAMPLING * (name["pen"] + rng.normal(0, 0.2))))
    for line in lines:
        at = (line - (low + high) / 2) * scale + [width / 2, height / 2]
        draw.line([tuple(point) for point in at], fill=20, width=pen, joint="curve")
    return np.asarray(picture.resize(SIZE[::-1], Image.Resampling.BOX))


def smooth(points: np.ndarray, steps: int = 12) -> np.ndarray:
    """A curve through `points` (n, 2), (steps (n - 1) + 1, 2), Catmull and Rom's cubics (1974)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (padded[place : len(padded) - 3 + place, np.newaxis] for place in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, np.newaxis]
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )  # fmt: skip
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def tremor(count: int, rng: np.random.Generator) -> np.ndarray:
    """Trembling along a line of `count` points, (count, 2): noise over three neighbours."""
    noise = rng.normal(0, TREMOR, (count + 2, 2))
    return (noise[:-2] + noise[1:-1] + noise[2:]) / np.sqrt(3)
