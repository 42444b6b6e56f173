"""The sample image for the style of style transfer: brush strokes along a swirling flow."""

from __future__ import annotations

import numpy as np
from PIL import Image

import labkit
from tp3_cnn_resnet.pictures.paint import HEIGHT, WIDTH, colour, noise

ndimage = labkit.lazy("scipy.ndimage")

BLUES = ("#0b1f4b", "#12357a", "#1d57a8", "#3d86c6", "#7fb7d9", "#1a2a5e", "#274b8f")
WARMS = ("#f6c945", "#f2a33a", "#e8743b", "#fbe8a6", "#d9542b")


def draw_style() -> Image.Image:
    """Thick strokes of blue and gold that follow eddies, lit from the upper left: RGB, 640x480."""
    rng = np.random.default_rng(11)
    scale = 2
    width, height = WIDTH * scale, HEIGHT * scale
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    eddies = [
        (0.26, 0.32, 0.21, 1),
        (0.70, 0.25, 0.15, -1),
        (0.55, 0.68, 0.19, 1),
        (0.90, 0.72, 0.15, -1),
        (0.12, 0.82, 0.15, -1),
    ]
    # A wavy wind, bent into circles around each eddy.
    wave = (noise(rng, (height // 8, width // 8), (12, 25)) - 0.5) * 2.4
    wave = np.asarray(
        Image.fromarray(wave.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    )
    u, v = np.cos(wave), np.sin(wave)
    glow = np.zeros((height, width), np.float32)
    for cx, cy, radius, turn in eddies:
        dx, dy = x - cx * width, y - cy * height
        far = np.hypot(dx, dy) / (radius * width)
        pull = 6 * np.exp(-(far**2) * 1.6)
        u, v = (
            u - turn * pull * dy / (far * radius * width + 1),
            v + turn * pull * dx / (far * radius * width + 1),
        )
        glow = np.maximum(
            glow, np.exp(-(far**2) * 4) + 0.45 * np.exp(-(((far - 0.62) / 0.10) ** 2))
        )
    length = np.hypot(u, v)
    u, v = u / length, v / length

    paint = np.empty((height, width, 3), np.float32)
    paint[:] = colour("#12306a")
    relief = np.zeros((height, width), np.float32)
    tones = noise(rng, (height // 8, width // 8), (5, 14))
    blues, warms = np.array([colour(c) for c in BLUES]), np.array([colour(c) for c in WARMS])
    for stroke in range(5200):
        px, py = rng.uniform(0, width), rng.uniform(0, height)
        big = stroke < 2000
        half = rng.uniform(9, 13) if big else rng.uniform(4, 7.5)
        steps = int(rng.uniform(14, 26))
        heat = glow[int(py), int(px)] + rng.normal(0, 0.16)
        if heat > 0.42:
            base = warms[rng.integers(5)] if heat < 0.75 else warms[[0, 1, 3][rng.integers(3)]]
        else:
            tone = np.clip(tones[int(py) // 8, int(px) // 8] * 7 + rng.normal(0, 1.2), 0, 6.99)
            base = blues[np.argsort(blues.sum(1))][int(tone)]
        base = np.clip(base + rng.normal(0, 0.035, 3), 0, 1)
        _stroke(paint, relief, (px, py), (u, v), half, steps, base, rng)
    # Light from the upper left on the relief of the paint.
    relief = ndimage.gaussian_filter(relief, 0.8)
    light = np.clip((relief - np.roll(relief, (2, 2), (0, 1))) * 0.34, -0.22, 0.28)
    paint = np.clip(paint + light[..., None], 0, 1)
    canvas = Image.fromarray((paint * 255).astype(np.uint8))
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _stroke(
    paint: np.ndarray,
    relief: np.ndarray,
    start: tuple[float, float],
    flow: tuple[np.ndarray, np.ndarray],
    half: float,
    steps: int,
    base: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """One stroke of half-width `half` pixels along `flow`, each bristle with a tone of its own."""
    height, width = relief.shape
    spine = [start]
    for _ in range(steps):
        px, py = spine[-1]
        column, row = int(np.clip(px, 0, width - 1)), int(np.clip(py, 0, height - 1))
        spine.append((px + 4 * flow[0][row, column], py + 4 * flow[1][row, column]))
    spine = np.array(spine)  # (steps + 1, 2), x first
    along = np.linspace(0, steps, steps * 5)
    centre = np.stack([np.interp(along, range(steps + 1), spine[:, axis]) for axis in (0, 1)], 1)
    tangent = np.gradient(centre, axis=0)
    tangent /= np.hypot(*tangent.T)[:, None] + 1e-9
    across = np.linspace(-half, half, int(half * 3))
    taper = np.sqrt(np.clip(1 - np.abs(2 * along / steps - 1) ** 4, 0, 1))
    points_x = centre[:, :1] - tangent[:, 1:] * across * taper[:, None]  # (length, bristles)
    points_y = centre[:, 1:] + tangent[:, :1] * across * taper[:, None]
    bristle = ndimage.gaussian_filter(rng.normal(0, 1, len(across)), 1.2)
    tone = base + 0.075 * bristle[:, None]  # (bristles, 3)
    columns, rows = np.rint(points_x).astype(int), np.rint(points_y).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    paint[rows[inside], columns[inside]] = np.broadcast_to(tone, (*columns.shape, 3))[inside]
    bump = np.sqrt(1 - (across / (half * 1.05)) ** 2) + 0.35 * bristle
    relief[rows[inside], columns[inside]] = np.broadcast_to(bump, columns.shape)[inside]
