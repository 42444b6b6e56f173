"""Simulated microscopy with exact masks, made so that brightness says nothing about the target.

The target is a *granular cell*: a round contour with a bright membrane and a dark halo, filled with
granules. Its mean brightness is exactly its surroundings'. What a threshold could hold on to is
spoiled on purpose:

- uneven light multiplies the whole image, so no brightness means the same everywhere;
- *ghosts* have the cell's contour, membrane and halo, but no granules: shape alone isn't enough;
- *crystals* have the cell's granules inside straight edges: texture alone isn't enough;
- *debris* and *fibres*, brighter or darker than everything else, lie on top and hide parts;
- cells are often small (their radius is drawn on a logarithmic scale) and often touch;
- some images hold no cell at all.

The truth goes on below debris and fibres, as an expert would draw it. Every image has a random
generator of its own, keyed by level, part and number: parts share no image, and the first
hundred images of a part are the same whether a hundred or a thousand are asked for.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

import labkit

ndimage = labkit.lazy("scipy.ndimage")

SIZE = 128
"""Height and width of an image, pixels."""
PARTS = ("train", "validation", "test")
LevelName = Literal["easy", "standard", "hard"]


@dataclass(frozen=True)
class Level:
    """How difficult the images are; pairs are the least and the most of something."""

    cells: tuple[int, int]
    radius: tuple[float, float]
    """Of the cells, pixels."""
    brightness: float
    """What a cell's mean exceeds its surroundings by; 0: a threshold can't find it."""
    granules: float
    """Standard deviation of the texture inside cells and crystals; full white is 1."""
    membrane: float
    """Height of the bright line around cells and ghosts."""
    grain: float
    """Standard deviation of the background's texture."""
    ghosts: tuple[int, int]
    crystals: tuple[int, int]
    debris: tuple[int, int]
    fibres: tuple[int, int]
    light: float
    """Largest relative change of the light from the image's middle to its border."""
    noise: float
    """Standard deviation of the camera's noise."""
    touching: float
    """Share of cells that are laid against another one, where there is one."""
    empty: float
    """Share of images without any cell."""


NONE = (0, 0)
LEVELS: dict[str, Level] = {
    # Bright cells on an even background: one threshold finds them. It is here to show that.
    "easy": Level(
        cells=(1, 3), radius=(8, 20), brightness=0.4, granules=0.03, membrane=0.0, grain=0.02,
        ghosts=NONE, crystals=NONE, debris=NONE, fibres=NONE,
        light=0.0, noise=0.04, touching=0.0, empty=0.0,
    ),
    "standard": Level(
        cells=(1, 7), radius=(4, 16), brightness=0.0, granules=0.13, membrane=0.16, grain=0.03,
        ghosts=(0, 3), crystals=(0, 2), debris=(1, 6), fibres=(0, 3),
        light=0.45, noise=0.02, touching=0.35, empty=0.08,
    ),
    "hard": Level(
        cells=(1, 9), radius=(3, 14), brightness=0.0, granules=0.09, membrane=0.09, grain=0.045,
        ghosts=(1, 5), crystals=(1, 4), debris=(3, 10), fibres=(1, 5),
        light=0.6, noise=0.04, touching=0.5, empty=0.12,
    ),
}  # fmt: skip


def scenes(part: str, count: int, level: str = "standard") -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images of `part` (train, validation or test), and their truth.

    Both are (count, 128, 128) uint8. The truth is 0 for the background, then 1, 2, ... for the
    cells of that image. Raises `ValueError` for another part or level.
    """
    if part not in PARTS or level not in LEVELS:
        raise ValueError(f"no part {part!r} of level {level!r}: see PARTS and LEVELS")
    key = list(LEVELS).index(level), PARTS.index(part)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    instances = np.empty_like(images)
    for number in range(count):
        rng = np.random.default_rng([*key, number])
        images[number], instances[number] = scene(rng, LEVELS[level])
    return images, instances


def scene(rng: np.random.Generator, level: Level) -> tuple[np.ndarray, np.ndarray]:
    """One image (128, 128) uint8 and its cells (128, 128) uint8, as in `scenes`."""
    granules = level.granules * texture(rng, 1.0, 2.5)
    canvas = level.grain * texture(rng, 0.7, 3.0)  # zero on average; light and 0.5 come later
    instances = np.zeros((SIZE, SIZE), np.uint8)

    for _ in range(rng.integers(*level.ghosts, endpoint=True)):
        contour = round_contour(rng, rng.uniform(8, SIZE - 8, 2), rng.uniform(6, 15))
        draw_body(canvas, contour, canvas, level.membrane)
    for _ in range(rng.integers(*level.crystals, endpoint=True)):
        contour = straight_contour(rng, rng.uniform(8, SIZE - 8, 2), rng.uniform(6, 13))
        draw_body(canvas, contour, granules)

    wanted = 0 if rng.random() < level.empty else rng.integers(*level.cells, endpoint=True)
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(wanted):
        radius = float(np.exp(rng.uniform(*np.log(level.radius))))
        for _ in range(20):  # tries; then there is no room
            if placed and rng.random() < level.touching:
                centre, other = placed[rng.integers(len(placed))]
                angle = rng.uniform(0, 2 * np.pi)
                centre = centre + (other + radius) * np.array([np.sin(angle), np.cos(angle)])
            else:
                centre = rng.uniform(4, SIZE - 4, 2)
            if not (centre.min() > 2 and centre.max() < SIZE - 2):
                continue
            window, distance = contour = round_contour(rng, centre, radius)
            taken = instances[window]  # a view: the image's own map
            pixels, free = distance < 0, taken == 0
            if (pixels & ~free).sum() <= 0.15 * pixels.sum():
                draw_body(canvas, contour, granules, level.membrane, free, level.brightness)
                placed.append((centre, radius))
                taken[pixels & free] = len(placed)
                break

    for _ in range(rng.integers(*level.debris, endpoint=True)):
        contour = round_contour(rng, rng.uniform(0, SIZE, 2), rng.uniform(1.5, 5), wobble=0.25)
        draw_body(canvas, contour, rng.choice([-1, 1]) * rng.uniform(0.15, 0.4))
    for _ in range(rng.integers(*level.fibres, endpoint=True)):
        _draw_fibre(rng, canvas)

    image = ndimage.gaussian_filter((0.5 + canvas) * uneven_light(rng, level.light), 0.5)
    image += rng.normal(0, level.noise, image.shape)
    return np.clip(255 * image, 0, 255).astype(np.uint8), instances


# --- Parts of an image ---------------------------------------------------------------------------


def texture(rng: np.random.Generator, fine: float, coarse: float) -> np.ndarray:
    """Random blobs between two scales (standard deviations, pixels): mean 0, deviation 1."""
    noise = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    field = ndimage.gaussian_filter(noise, fine, mode="wrap")
    field -= ndimage.gaussian_filter(noise, coarse, mode="wrap")
    return (field - field.mean()) / field.std()


def uneven_light(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A smooth factor for each pixel, 1 on average, within 1 - `strength` to 1 + `strength`."""
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    angle, phases = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, 2)
    field = rows * np.sin(angle) + columns * np.cos(angle)
    field += 0.5 * np.sin(2 * rows + phases[0]) * np.sin(2 * columns + phases[1])
    field -= field.mean()
    return 1 + strength * field / np.abs(field).max()


Contour = tuple[tuple[slice, slice], np.ndarray]
"""A closed curve: the window of the image that holds it and its halo, rows and columns, and about
how far each pixel of the window lies outside the curve, pixels; negative inside."""


def _around(
    centre: np.ndarray, radius: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """A window of 1.6 radii and a margin around `centre`; its pixels' steps down and right."""
    low = np.clip(np.floor(centre - 1.6 * radius - 6), 0, SIZE).astype(int)
    high = np.clip(np.ceil(centre + 1.6 * radius + 7), 0, SIZE).astype(int)
    window = slice(low[0], high[0]), slice(low[1], high[1])
    down = np.arange(low[0], high[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    right = np.arange(low[1], high[1], dtype=np.float32)[None] - np.float32(centre[1])
    return window, down, right


def round_contour(
    rng: np.random.Generator, centre: np.ndarray, radius: float, wobble: float = 0.08
) -> Contour:
    """An ellipse whose axes differ by up to 35 %, bent by up to `wobble` (a share of `radius`)."""
    window, down, right = _around(centre, radius)
    angle, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, 1.35))
    along = (down * np.sin(angle) + right * np.cos(angle)) / stretch
    across = (down * np.cos(angle) - right * np.sin(angle)) * stretch
    direction = np.arctan2(along, across)
    edge = radius
    for harmonic in (2, 3, 4):
        height = radius * wobble * rng.uniform(-1, 1) / (harmonic - 1)
        edge = edge + height * np.cos(harmonic * direction + rng.uniform(0, 2 * np.pi))
    return window, np.hypot(along, across) - edge


def straight_contour(rng: np.random.Generator, centre: np.ndarray, radius: float) -> Contour:
    """A triangle or a quadrangle with corners about `radius` from the centre."""
    window, down, right = _around(centre, radius)
    sides = rng.integers(3, 5)
    angles = rng.uniform(0, np.pi) + 2 * np.pi * np.arange(sides) / sides
    depths = radius * np.cos(np.pi / sides) * rng.uniform(0.8, 1.1, sides)
    edges = [down * np.sin(a) + right * np.cos(a) - d for a, d in zip(angles, depths, strict=True)]
    return window, np.max(edges, axis=0)


def draw_body(
    canvas: np.ndarray,
    contour: Contour,
    filling: np.ndarray | float,
    membrane: float = 0.0,
    free: np.ndarray | bool = True,
    brightness: float = 0.0,
) -> None:
    """Draw a body onto `canvas` (128, 128), in place, where `free` (of the window) allows it.

    `filling` is (128, 128) or one value. With a `membrane` the body has a bright line on its
    contour, a dark halo around it, and a mean over its pixels of `brightness` above the
    background's.
    """
    window, distance = contour
    inside = np.clip(0.5 - distance, 0, 1)  # soft over one pixel
    body = np.broadcast_to(filling, canvas.shape)[window]
    pixels = distance < 0
    if (membrane or brightness) and pixels.any():
        body = body + membrane * np.exp(-0.5 * ((distance + 0.8) / 0.9) ** 2)
        body = body - body[pixels].mean() + brightness
    halo = -0.8 * membrane * np.exp(-0.5 * ((distance - 2) / 1.2) ** 2)
    below = canvas[window]
    drawn = inside * body + (1 - inside) * (below + halo)
    canvas[window] = np.where(free, drawn, below)


def _draw_fibre(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Lay a bent line of one to three pixels' width across `canvas`, in place."""
    start, bend, end = rng.uniform(-10, SIZE + 10, (3, 2))
    steps = np.linspace(0, 1, 25)[:, None]
    points = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
    line = Image.new("L", (SIZE, SIZE))
    width = int(rng.integers(1, 4))
    ImageDraw.Draw(line).line([tuple(point) for point in points.tolist()], fill=255, width=width)
    canvas[np.asarray(line) > 0] = rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)
