"""The sample image for the content of style transfer: a coast at sunset.

Shapes are drawn three times too large and scaled down, which smooths their edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tp3_cnn_resnet.pictures.paint import HEIGHT, WIDTH, colour, gradient, noise

SCALE = 3


def draw_content() -> Image.Image:
    """A lighthouse, a house, firs and a sail before mountains and a low sun: RGB, 640x480."""
    rng = np.random.default_rng(7)
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    horizon, sun = int(0.60 * height), (int(0.36 * width), int(0.53 * height))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)

    sky = gradient(
        [(0, "#274a86"), (0.35, "#6f7fb0"), (0.62, "#d79a8f"), (0.85, "#f6b26b"), (1, "#fbd58a")],
        np.clip(y / horizon, 0, 1),
    )
    distance = np.hypot(x - sun[0], y - sun[1]) / width
    sky += np.exp(-distance / 0.10)[..., None] * (colour("#fff0b8") - sky) * 0.75
    clouds = noise(rng, (height // 6, width // 6), (4, 9, 22))
    clouds = np.asarray(Image.fromarray(clouds.astype(np.float32)).resize((width, height // 3)))
    clouds = np.clip((np.tile(clouds, (3, 1)) - 0.56) * 5, 0, 1) * np.clip(1.1 - y / horizon, 0, 1)
    lit = gradient([(0, "#f3d9cf"), (0.5, "#f7b592"), (1, "#f5935e")], np.clip(y / horizon, 0, 1))
    sky += (0.8 * clouds)[..., None] * (lit - sky)
    sky[distance < 0.036] = colour("#fff6d2")
    image = sky

    # Ridges, the far ones pale: sums of waves give the outline.
    for base, size, shade in (
        (0.55, 0.13, "#8d86ab"),
        (0.575, 0.085, "#66678f"),
        (0.60, 0.05, "#454f78"),
    ):
        outline = np.zeros(width)
        for octave in range(1, 9):
            phase = rng.uniform(0, 2 * np.pi)
            wave = np.sin(np.arange(width) / width * 2 * np.pi * 0.7 * 1.7**octave + phase)
            outline += np.abs(wave) / 1.6**octave
        ridge = (base - size * outline / outline.max()) * height + 0.02 * height
        inside = (y > ridge) & (y < horizon)
        depth = np.clip((y - ridge) / (0.12 * height), 0, 1)[..., None]
        body = colour(shade) * (1 - 0.35 * depth) + colour("#d9a58f") * 0.35 * depth
        image = np.where(inside[..., None], body, image)

    # The sea mirrors what stands above it, shaken by ripples that grow towards us.
    below = y[horizon:] - horizon
    near = below / (height - horizon)
    ripple = noise(rng, (height - horizon, width // 8), (1.5, 3))
    ripple = np.asarray(
        Image.fromarray(ripple.astype(np.float32)).resize((width, height - horizon))
    )
    source = np.clip(
        horizon - 1 - below * 1.15 + (ripple - 0.5) * 160 * (0.2 + near), 0, horizon - 1
    )
    rows, columns = source.astype(int), (x[horizon:]).astype(int)
    sea = image[rows, columns] * 0.72 + colour("#1c3d6b") * 0.28
    sea = sea * (1 - 0.35 * near[..., None]) + colour("#12305a") * 0.35 * near[..., None]
    path = np.exp(-(((x[horizon:] - sun[0]) / (40 + 0.55 * below)) ** 2)) * (
        ripple > 0.52 - 0.1 * (1 - near)
    )
    sea += (0.75 * path)[..., None] * (colour("#ffe29a") - sea)
    image = np.concatenate([image[:horizon], sea])

    canvas = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    _draw_objects(canvas, rng)
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _draw_objects(canvas: Image.Image, rng: np.random.Generator) -> None:
    """Sail, cliff, lighthouse, house and firs, in units of 640x480 from the top left."""
    pen = ImageDraw.Draw(canvas)

    def shape(points: Sequence[tuple[float, float]], fill: str) -> None:
        pen.polygon([(px * SCALE, py * SCALE) for px, py in points], fill=fill)

    # A boat with its mirror image.
    shape([(120, 326), (170, 326), (160, 339), (129, 339)], "#3a2530")
    shape([(146, 262), (146, 322), (182, 322)], "#fdf1e0")
    shape([(142, 270), (142, 322), (116, 322)], "#e2664a")
    pen.line(
        [(144 * SCALE, 258 * SCALE), (144 * SCALE, 327 * SCALE)], fill="#3a2530", width=2 * SCALE
    )
    for row in range(342, 384, 5):
        half = 20 - (row - 342) * 0.38
        shape(
            [(145 - half, row), (145 + half, row), (145 + half, row + 2), (145 - half, row + 2)],
            "#c98f84",
        )

    # The cliff: a ragged outline, then strata and grass.
    top = [
        (318, 480),
        (338, 452),
        (372, 430),
        (392, 398),
        (428, 376),
        (470, 352),
        (520, 342),
        (580, 338),
        (640, 328),
    ]
    fine = np.linspace(0, len(top) - 1, 80)
    outline = np.array(
        [np.interp(fine, range(len(top)), [p[axis] for p in top]) for axis in (0, 1)]
    ).T
    outline += rng.normal(0, 2.0, outline.shape)
    shape([*map(tuple, outline), (642, 480)], "#3b3346")
    for _ in range(260):
        px, py = rng.uniform(330, 640), rng.uniform(350, 480)
        edge = np.interp(px, outline[:, 0], outline[:, 1])
        if py > edge + 16:
            length, tone = rng.uniform(8, 30), rng.integers(0, 4)
            shape(
                [(px, py), (px + length, py - 5), (px + length * 0.8, py + 3)],
                ("#4d4159", "#2d2838", "#6a5163", "#8a6468")[tone],
            )
    grass = [(px, py + 13 + rng.normal(0, 3)) for px, py in outline[::-1]]
    shape([*map(tuple, outline), *grass], "#56703f")
    for px, py in outline[8:]:
        for _ in range(5):
            foot = px + rng.uniform(-4, 4), py + rng.uniform(1, 9)
            tip = foot[0] + rng.uniform(-2, 2), foot[1] - rng.uniform(4, 9)
            shape(
                [foot, (foot[0] + 1.6, foot[1]), tip],
                ("#86984a", "#6b8a45", "#b9a552")[rng.integers(3)],
            )

    # The lighthouse: a tapering tower with bands, gallery, lantern, dome.
    def tower(level: float, extra: float = 0) -> tuple[float, float]:
        half = 13 + 9 * level + extra
        return 508 - half, 508 + half

    for band in range(6):
        first, last = band / 6, (band + 1) / 6
        left, right, low_left, low_right = *tower(first), *tower(last)
        y0, y1 = 166 + 182 * first, 166 + 182 * last
        light, dark = (("#d2422f", "#8f2a2b"), ("#fff4e2", "#b9a9b0"))[band % 2]
        shape([(left, y0), (right, y0), (low_right, y1), (low_left, y1)], light)
        shape([(508 + 3, y0), (right, y0), (low_right, y1), (508 + 5, y1)], dark)
    for level in (0.3, 0.62):
        py = 166 + 182 * level
        shape([(500, py), (506, py), (506, py + 11), (500, py + 11)], "#2b2430")
    shape([(488, 160), (528, 160), (525, 168), (491, 168)], "#2b2430")
    shape([(496, 136), (520, 136), (520, 160), (496, 160)], "#ffd766")
    shape([(502, 136), (504, 136), (504, 160), (502, 160)], "#2b2430")
    shape([(512, 136), (514, 136), (514, 160), (512, 160)], "#2b2430")
    shape([(492, 137), (508, 116), (524, 137)], "#8f2a2b")
    pen.line(
        [(508 * SCALE, 108 * SCALE), (508 * SCALE, 120 * SCALE)], fill="#2b2430", width=2 * SCALE
    )

    # The house: wall, gable, roof, chimney, two lit windows, a door.
    shape([(556, 296), (618, 296), (618, 342), (556, 346)], "#f3dfc4")
    shape([(594, 296), (618, 296), (618, 342), (594, 344)], "#c7a99b")
    shape([(604, 254), (612, 254), (612, 280), (604, 280)], "#6d4a4a")
    shape([(548, 299), (566, 266), (612, 266), (628, 299)], "#b5473a")
    shape([(594, 299), (612, 266), (628, 299)], "#84302f")
    for px in (562, 600):
        shape([(px, 308), (px + 11, 308), (px + 11, 321), (px, 321)], "#ffd766")
        shape([(px + 5, 308), (px + 6, 308), (px + 6, 321), (px + 5, 321)], "#5b3a35")
    shape([(579, 318), (589, 318), (589, 344), (579, 345)], "#5b3a35")

    # Firs on the slope.
    for px, py, size in (
        (432, 384, 50),
        (452, 370, 66),
        (474, 362, 44),
        (632, 336, 58),
        (412, 396, 36),
    ):
        shape([(px - 2, py - 4), (px + 2, py - 4), (px + 2, py + 6), (px - 2, py + 6)], "#2b2430")
        for tier in range(4):
            y1 = py - tier * size * 0.2
            half = size * 0.26 * (1 - tier * 0.2)
            shape([(px - half, y1), (px, y1 - size * 0.42), (px + half, y1)], "#24463d")
            shape([(px - half, y1), (px, y1 - size * 0.42), (px - half * 0.25, y1)], "#3f6a4a")
    for px, py in ((230, 120), (252, 108), (276, 124), (300, 96)):  # gulls
        shape([(px - 8, py - 4), (px, py), (px + 8, py - 4), (px, py + 2.2)], "#37406a")
