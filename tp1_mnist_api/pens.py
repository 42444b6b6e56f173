"""MNIST's digits drawn again with a pen: any size, colours, strokes, light and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter


def drawing(
    digit: np.ndarray,
    rng: np.random.Generator,
    side: int = 280,
    stroke: int = 0,
    ink: Sequence[int] | None = (0, 0, 0),
    paper: Sequence[int] | None = (255, 255, 255),
    room: float = 1.0,
    shade: float = 0.0,
    noise: float = 0.0,
    blur: float = 0.0,
    ruled: bool = False,
) -> Image.Image:
    """`digit`, (28, 28) in 0..255, as an RGB picture of `side` x `side` pixels.

    `stroke` thickens (above 0) or thins each side of the lines by so many tenths of MNIST's pixel;
    `ink` and `paper` are RGB, None draws a random pair; `room` is the width of the picture over
    the digit's frame, the place is random; `shade` darkens one side; `noise` is the standard
    deviation of each channel; `blur` the radius in pixels; `ruled` adds pale blue lines.
    """
    fine = Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)
    if stroke:
        turn = ImageFilter.MaxFilter if stroke > 0 else ImageFilter.MinFilter
        for _ in range(abs(stroke)):  # equals one wide filter, with fewer comparisons
            fine = fine.filter(turn(3))
    # Twice the contrast: a pen's edge is sharper than MNIST's.
    mask = fine.point(lambda value: min(255, max(0, 2 * value - 128)))
    frame = max(8, round(side / room))
    mask = mask.resize((frame, frame), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (side, side))
    free = side - frame
    canvas.paste(mask, tuple(int(value) for value in rng.integers(0, free + 1, 2)))
    if ink is None or paper is None:
        ink, paper = random_colours(rng)
    ground = Image.new("RGB", (side, side), tuple(map(int, paper)))
    if ruled:
        for row in range(0, side, max(6, side // 9)):
            ground.paste((150, 180, 230), (0, row, side, row + 1))
    ground.paste(tuple(map(int, ink)), mask=canvas)
    if not (shade or noise or blur):
        return ground
    pixels = np.asarray(ground, np.float32)
    if shade:
        direction = rng.uniform(0, 2 * np.pi)
        down, right = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j] - 0.5
        slope = down * np.sin(direction) + right * np.cos(direction)
        pixels = pixels * (1 - shade * (0.5 + slope / 1.42))[..., None]
    if noise:
        pixels = pixels + rng.normal(0, noise, pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture


def random_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB colours at least 120 apart, whichever of them is lighter."""
    while True:
        ink, paper = rng.integers(0, 256, (2, 3))
        if np.linalg.norm(ink - paper) >= 120:
            return ink, paper


def transparent(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Black ink on nothing, as drawing programs save it."""
    ink = drawing(digit, rng).convert("L").point(lambda value: 255 - value)
    black = Image.new("L", ink.size)
    return Image.merge("RGBA", (black, black, black, ink))
