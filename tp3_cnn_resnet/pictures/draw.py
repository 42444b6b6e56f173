"""Draw the two sample images of style transfer: a coast at sunset, and a field of brush strokes.

    python tp3_cnn_resnet/pictures/draw.py             # writes content.jpg and style.jpg beside it

Everything is drawn by code, from fixed seeds: no photograph, nobody else's painting. Shapes are
drawn too large and scaled down, which smooths their edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

import labkit

ndimage = labkit.lazy("scipy.ndimage")

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT = 640, 480
BLUES = ("#0b1f4b", "#1a2a5e", "#12357a", "#274b8f", "#1d57a8", "#3d86c6", "#7fb7d9")
WARMS = ("#f6c945", "#f2a33a", "#e8743b", "#fbe8a6", "#d9542b")


@dataclass(frozen=True)
class Config:
    """Where the images go."""

    folder: Path = FOLDER
    """Folder of content.jpg and style.jpg."""


# --- What both are painted with ------------------------------------------------------------------


def colour(text: str) -> np.ndarray:
    """`#rrggbb` as float RGB, (3,), 0..1."""
    return np.array(ImageColor.getrgb(text)) / 255


def noise(rng: np.random.Generator, shape: tuple[int, int], sigmas: Sequence[float]) -> np.ndarray:
    """Smooth noise in 0..1, (height, width): white noise blurred at several scales, summed."""
    total = np.zeros(shape)
    for sigma in sigmas:
        layer = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
        total += layer / layer.std() * sigma
    total -= total.min()
    return total / total.max()


def enlarged(field: np.ndarray, width: int, height: int) -> np.ndarray:
    """A field of any size at another one, (height, width) float32."""
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize((width, height)))


def gradient(stops: dict[float, str], t: np.ndarray) -> np.ndarray:
    """Colours at `t` (any shape) between the stops, position to colour: (..., 3) in 0..1."""
    colours = np.array([colour(text) for text in stops.values()])
    return np.stack([np.interp(t, list(stops), channel) for channel in colours.T], axis=-1)


# --- The content: a coast ------------------------------------------------------------------------


def draw_content() -> Image.Image:
    """A lighthouse, a house, firs and a sail before mountains and a low sun: RGB, 640x480."""
    rng = np.random.default_rng(7)
    width, height = 3 * WIDTH, 3 * HEIGHT
    horizon, sun = int(0.60 * height), (int(0.36 * width), int(0.53 * height))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    up = np.clip(y / horizon, 0, 1)
    sky = gradient(
        {0: "#274a86", 0.35: "#6f7fb0", 0.62: "#d79a8f", 0.85: "#f6b26b", 1: "#fbd58a"}, up
    )
    distance = np.hypot(x - sun[0], y - sun[1]) / width
    sky += np.exp(-distance / 0.10)[..., None] * (colour("#fff0b8") - sky) * 0.75
    clouds = enlarged(noise(rng, (height // 6, width // 6), (4, 9, 22)), width, height // 3)
    clouds = np.clip((np.tile(clouds, (3, 1)) - 0.56) * 5, 0, 1) * np.clip(1.1 - y / horizon, 0, 1)
    lit = gradient({0: "#f3d9cf", 0.5: "#f7b592", 1: "#f5935e"}, up)
    sky += (0.8 * clouds)[..., None] * (lit - sky)
    sky[distance < 0.036] = colour("#fff6d2")

    # Ridges, the far ones pale: sums of waves give the outline.
    image, turns = sky, np.arange(width) / width * 2 * np.pi * 0.7
    shades = {"#8d86ab": (0.55, 0.13), "#66678f": (0.575, 0.085), "#454f78": (0.60, 0.05)}
    for shade, (base, size) in shades.items():
        outline = sum(
            np.abs(np.sin(turns * 1.7**octave + rng.uniform(0, 2 * np.pi))) / 1.6**octave
            for octave in range(1, 9)
        )
        ridge = (base - size * outline / outline.max()) * height + 0.02 * height
        inside = (y > ridge) & (y < horizon)
        depth = np.clip((y - ridge) / (0.12 * height), 0, 1)[..., None]
        body = colour(shade) * (1 - 0.35 * depth) + colour("#d9a58f") * 0.35 * depth
        image = np.where(inside[..., None], body, image)

    # The sea mirrors what stands above it, shaken by ripples that grow towards us.
    below, columns = y[horizon:] - horizon, x[horizon:]
    near = below / (height - horizon)
    ripple = enlarged(noise(rng, (height - horizon, width // 8), (1.5, 3)), width, height - horizon)
    rows = horizon - 1 - below * 1.15 + (ripple - 0.5) * 160 * (0.2 + near)
    sea = image[np.clip(rows, 0, horizon - 1).astype(int), columns.astype(int)]
    sea = sea * 0.72 + colour("#1c3d6b") * 0.28
    sea = sea * (1 - 0.35 * near[..., None]) + colour("#12305a") * 0.35 * near[..., None]
    path = np.exp(-(((columns - sun[0]) / (40 + 0.55 * below)) ** 2))
    path *= ripple > 0.52 - 0.1 * (1 - near)
    sea += (0.75 * path)[..., None] * (colour("#ffe29a") - sea)
    image = np.concatenate([image[:horizon], sea])
    canvas = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    draw_objects(ImageDraw.Draw(canvas), rng)
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def draw_objects(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Sail, cliff, lighthouse, house and firs, in 640x480; the canvas has three times as many."""

    def shape(fill: str, *points: tuple[float, float]) -> None:
        pen.polygon([(3 * px, 3 * py) for px, py in points], fill=fill)

    def bar(fill: str, left: float, top: float, right: float, bottom: float) -> None:
        shape(fill, (left, top), (right, top), (right, bottom), (left, bottom))

    # A boat with its mirror image.
    shape("#3a2530", (120, 326), (170, 326), (160, 339), (129, 339))
    shape("#fdf1e0", (146, 262), (146, 322), (182, 322))
    shape("#e2664a", (142, 270), (142, 322), (116, 322))
    pen.line((3 * 144, 3 * 258, 3 * 144, 3 * 327), fill="#3a2530", width=6)
    for row in range(342, 384, 5):
        half = 20 - (row - 342) * 0.38
        bar("#c98f84", 145 - half, row, 145 + half, row + 2)

    # The cliff: a ragged outline, then strata and grass.
    fine = np.linspace(0, 8, 80)
    right = np.interp(fine, range(9), [318, 338, 372, 392, 428, 470, 520, 580, 640])
    down = np.interp(fine, range(9), [480, 452, 430, 398, 376, 352, 342, 338, 328])
    outline = np.stack([right, down], axis=1)
    outline += rng.normal(0, 2.0, outline.shape)
    shape("#3b3346", *outline, (642, 480))
    for _ in range(260):
        px, py = rng.uniform(330, 640), rng.uniform(350, 480)
        if py > np.interp(px, outline[:, 0], outline[:, 1]) + 16:
            length = rng.uniform(8, 30)
            stone = ("#4d4159", "#2d2838", "#6a5163", "#8a6468")[rng.integers(0, 4)]
            shape(stone, (px, py), (px + length, py - 5), (px + length * 0.8, py + 3))
    grass = [(px, py + 13 + rng.normal(0, 3)) for px, py in outline[::-1]]
    shape("#56703f", *outline, *grass)
    for px, py in np.repeat(outline[8:], 5, axis=0):
        x, y = px + rng.uniform(-4, 4), py + rng.uniform(1, 9)
        tip = x + rng.uniform(-2, 2), y - rng.uniform(4, 9)
        shape(("#86984a", "#6b8a45", "#b9a552")[rng.integers(3)], (x, y), (x + 1.6, y), tip)

    # The lighthouse: a tapering tower with bands, gallery, lantern, dome.
    for band in range(6):
        levels = band / 6, (band + 1) / 6
        top, bottom = (13 + 9 * level for level in levels)
        y0, y1 = (166 + 182 * level for level in levels)
        light, dark = (("#d2422f", "#8f2a2b"), ("#fff4e2", "#b9a9b0"))[band % 2]
        shape(light, (508 - top, y0), (508 + top, y0), (508 + bottom, y1), (508 - bottom, y1))
        shape(dark, (508 + 3, y0), (508 + top, y0), (508 + bottom, y1), (508 + 5, y1))
    for py in (166 + 182 * 0.3, 166 + 182 * 0.62):
        bar("#2b2430", 500, py, 506, py + 11)
    shape("#2b2430", (488, 160), (528, 160), (525, 168), (491, 168))
    bar("#ffd766", 496, 136, 520, 160)
    bar("#2b2430", 502, 136, 504, 160)
    bar("#2b2430", 512, 136, 514, 160)
    shape("#8f2a2b", (492, 137), (508, 116), (524, 137))
    pen.line((3 * 508, 3 * 108, 3 * 508, 3 * 120), fill="#2b2430", width=6)

    # The house: wall, gable, roof, chimney, two lit windows, a door.
    shape("#f3dfc4", (556, 296), (618, 296), (618, 342), (556, 346))
    shape("#c7a99b", (594, 296), (618, 296), (618, 342), (594, 344))
    bar("#6d4a4a", 604, 254, 612, 280)
    shape("#b5473a", (548, 299), (566, 266), (612, 266), (628, 299))
    shape("#84302f", (594, 299), (612, 266), (628, 299))
    for px in (562, 600):
        bar("#ffd766", px, 308, px + 11, 321)
        bar("#5b3a35", px + 5, 308, px + 6, 321)
    shape("#5b3a35", (579, 318), (589, 318), (589, 344), (579, 345))

    # Firs on the slope, and gulls.
    firs = (432, 384, 50), (452, 370, 66), (474, 362, 44), (632, 336, 58), (412, 396, 36)
    for px, py, size in firs:
        bar("#2b2430", px - 2, py - 4, px + 2, py + 6)
        for tier in range(4):
            foot, half = py - tier * size * 0.2, size * 0.26 * (1 - tier * 0.2)
            top = px, foot - size * 0.42
            shape("#24463d", (px - half, foot), top, (px + half, foot))
            shape("#3f6a4a", (px - half, foot), top, (px - half * 0.25, foot))
    for px, py in ((230, 120), (252, 108), (276, 124), (300, 96)):
        shape("#37406a", (px - 8, py - 4), (px, py), (px + 8, py - 4), (px, py + 2.2))


# --- The style: brush strokes --------------------------------------------------------------------


def draw_style() -> Image.Image:
    """Thick strokes of blue and gold that follow eddies, lit from the upper left: RGB, 640x480."""
    rng = np.random.default_rng(11)
    width, height = 2 * WIDTH, 2 * HEIGHT
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    # A wavy wind, bent into circles around each eddy.
    wave = enlarged((noise(rng, (height // 8, width // 8), (12, 25)) - 0.5) * 2.4, width, height)
    u, v = np.cos(wave), np.sin(wave)
    glow = np.zeros((height, width), np.float32)
    for cx, cy, radius, turn in (
        (0.26, 0.32, 0.21, 1), (0.70, 0.25, 0.15, -1), (0.55, 0.68, 0.19, 1),
        (0.90, 0.72, 0.15, -1), (0.12, 0.82, 0.15, -1),
    ):  # fmt: skip
        dx, dy = x - cx * width, y - cy * height
        far = np.hypot(dx, dy) / (radius * width)
        pull = turn * 6 * np.exp(-(far**2) * 1.6)
        distance = far * radius * width + 1
        u, v = u - pull * dy / distance, v + pull * dx / distance
        ring = np.exp(-(far**2) * 4) + 0.45 * np.exp(-(((far - 0.62) / 0.10) ** 2))
        glow = np.maximum(glow, ring)
    flow = np.stack([u, v], axis=-1) / np.hypot(u, v)[..., None]  # x first

    paint = np.full((height, width, 3), colour("#12306a"), np.float32)
    relief = np.zeros((height, width), np.float32)
    tones = noise(rng, (height // 8, width // 8), (5, 14))
    blues, warms = np.array([colour(c) for c in BLUES]), np.array([colour(c) for c in WARMS])
    for number in range(5200):
        px, py = rng.uniform(0, width), rng.uniform(0, height)
        half = rng.uniform(9, 13) if number < 2000 else rng.uniform(4, 7.5)
        steps = int(rng.uniform(14, 26))
        heat = glow[int(py), int(px)] + rng.normal(0, 0.16)
        if heat > 0.42:
            base = warms[rng.integers(5)] if heat < 0.75 else warms[[0, 1, 3][rng.integers(3)]]
        else:
            tone = np.clip(tones[int(py) // 8, int(px) // 8] * 7 + rng.normal(0, 1.2), 0, 6.99)
            base = blues[int(tone)]
        base = np.clip(base + rng.normal(0, 0.035, 3), 0, 1)
        rows, columns, tone, bump = stroke(rng, (px, py), flow, half, steps)
        paint[rows, columns] = base + 0.075 * tone
        relief[rows, columns] = bump
    # Light from the upper left on the relief of the paint.
    relief = ndimage.gaussian_filter(relief, 0.8)
    light = np.clip((relief - np.roll(relief, (2, 2), (0, 1))) * 0.34, -0.22, 0.28)
    canvas = Image.fromarray((np.clip(paint + light[..., None], 0, 1) * 255).astype(np.uint8))
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def stroke(
    rng: np.random.Generator, start: tuple[float, float], flow: np.ndarray, half: float, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of a stroke of half-width `half` pixels, and its bristles' tone and height.

    It follows the directions `flow` (height, width, 2) from `start`; both have x first. Tone is
    (pixels, 1), all else (pixels,).
    """
    height, width, _ = flow.shape
    spine = [np.array(start)]
    for _ in range(steps):
        column, row = np.clip(spine[-1], 0, (width - 1, height - 1)).astype(int)
        spine.append(np.float32(spine[-1]) + 4 * flow[row, column])
    along = np.linspace(0, steps, steps * 5)
    centre = np.stack(
        [np.interp(along, range(steps + 1), axis) for axis in np.transpose(spine)], axis=1
    )
    tangent = np.gradient(centre, axis=0)
    tangent /= np.hypot(*tangent.T)[:, None] + 1e-9
    across = np.linspace(-half, half, int(half * 3))
    taper = np.sqrt(np.clip(1 - np.abs(2 * along / steps - 1) ** 4, 0, 1))
    points_x = centre[:, :1] - tangent[:, 1:] * across * taper[:, None]  # (length, bristles)
    points_y = centre[:, 1:] + tangent[:, :1] * across * taper[:, None]
    columns, rows = np.rint(points_x).astype(int), np.rint(points_y).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    bristle = ndimage.gaussian_filter(rng.normal(0, 1, len(across)), 1.2)
    bump = np.sqrt(1 - (across / (half * 1.05)) ** 2) + 0.35 * bristle
    seen = np.nonzero(inside)[1]
    return rows[inside], columns[inside], bristle[seen, None], bump[seen]


# --- Main ----------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Draw and save both images; return their sizes in bytes."""
    config = labkit.parse(Config, argv)
    sizes = {}
    for name, draw in (("content", draw_content), ("style", draw_style)):
        path = config.folder / f"{name}.jpg"
        draw().save(path, quality=80)
        sizes[f"{name}_bytes"] = float(path.stat().st_size)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return sizes


if __name__ == "__main__":
    main()
