"""What stands around a digit on real pictures: boxes, table cells, sheets, shadows, faint lines.

Each function draws a digit, (28, 28) in 0..255, as an RGB picture; `rng` chooses sizes and places.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tp1_mnist_api.pens import drawing

SIDE = 300
TILT = 3
"""Largest turn of a box or a sheet, in degrees."""


def placed(
    digit: np.ndarray, rng: np.random.Generator, box: tuple[float, float, float, float], fill: float
) -> Image.Image:
    """`digit` in black on white, its ink `fill` times as long as the shorter side of `box`.

    `box` is left, top, right and bottom in pixels; the place inside is random.
    """
    left, top, right, bottom = box
    tight = tightly(digit)
    length = max(tight.shape)
    middle = np.zeros((28, 28), np.uint8)
    row, column = (28 - tight.shape[0]) // 2, (28 - tight.shape[1]) // 2
    middle[row : row + tight.shape[0], column : column + tight.shape[1]] = tight
    side = round(fill * min(right - left, bottom - top) * 28 / length)
    ink = Image.fromarray(tightly(255 - np.asarray(drawing(middle, rng, side=side).convert("L"))))
    free = max(0.0, right - left - ink.width), max(0.0, bottom - top - ink.height)
    x, y = left + rng.uniform() * free[0], top + rng.uniform() * free[1]
    page = Image.new("RGB", (SIDE, SIDE), "white")
    page.paste((0, 0, 0), (round(x), round(y)), ink)
    return page


def tightly(ink: np.ndarray) -> np.ndarray:
    """`ink` without the empty rows and columns around it."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def darker(*pictures: Image.Image) -> Image.Image:
    """The darkest of several pictures at each place: what is drawn on one sheet."""
    return Image.fromarray(np.minimum.reduce([np.asarray(picture) for picture in pictures]))


def turned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`picture` turned by up to `TILT` degrees, white where nothing was."""
    return picture.rotate(
        rng.uniform(-TILT, TILT), Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)
    )


def line_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Black, grey, blue or red, as forms are printed."""
    return [(0, 0, 0), (110, 110, 110), (40, 70, 180), (190, 50, 50)][rng.integers(4)]


def in_a_box(digit: np.ndarray, rng: np.random.Generator, sides: int = 4) -> Image.Image:
    """A printed box around the digit; with three `sides`, the picture ends before the fourth."""
    width = int(rng.integers(1, 9))
    margins = rng.uniform(0.03, 0.2, 4) * SIDE
    box = np.array([margins[0], margins[1], SIDE - margins[2], SIDE - margins[3]])
    inside = (*(box[:2] + width + 6), *(box[2:] - width - 6))
    if sides == 3:
        outside = rng.integers(4)
        box[outside] = -50 if outside < 2 else SIDE + 50
    lines = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(lines).rectangle([*map(float, box)], outline=line_colour(rng), width=width)
    return darker(turned(lines, rng), placed(digit, rng, inside, rng.uniform(0.45, 0.8)))


def in_a_table(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A cell of a table: its lines run on to the picture's border."""
    width = int(rng.integers(1, 9))
    margins = rng.uniform(0.01, 0.13, 4) * SIDE
    box = np.array([margins[0], margins[1], SIDE - margins[2], SIDE - margins[3]])
    lines, colour = Image.new("RGB", (SIDE, SIDE), "white"), line_colour(rng)
    draw = ImageDraw.Draw(lines)
    for x in box[::2]:
        draw.line([x, -50, x, SIDE + 50], colour, width)
    for y in box[1::2]:
        draw.line([-50, y, SIDE + 50, y], colour, width)
    inside = (*(box[:2] + width + 6), *(box[2:] - width - 6))
    return darker(turned(lines, rng), placed(digit, rng, inside, rng.uniform(0.45, 0.8)))


def touching_its_box(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A box whose line the digit touches or crosses by a little at one side."""
    width = int(rng.integers(1, 6))
    margins = rng.uniform(0.06, 0.15, 4) * SIDE
    box = [margins[0], margins[1], SIDE - margins[2], SIDE - margins[3]]
    lines = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(lines).rectangle(box, outline=line_colour(rng), width=width)
    return darker(lines, against(digit, rng, tuple(box), rng.uniform(0, 4)))


def against(
    digit: np.ndarray,
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    beyond: float,
) -> Image.Image:
    """`digit` moved against one side of `box`, over it by `beyond` pixels."""
    page = 255 - np.asarray(placed(digit, rng, box, rng.uniform(0.5, 0.8)).convert("L"))
    rows, columns = np.flatnonzero(page.any(axis=1)), np.flatnonzero(page.any(axis=0))
    side = rng.integers(4)
    ends = (columns[0], rows[0], columns[-1], rows[-1])
    step = round(box[side] - ends[side] + (beyond if side > 1 else -beyond))
    moved = (0, step) if side % 2 else (step, 0)
    shifted = Image.new("RGB", (SIDE, SIDE), "white")
    shifted.paste(Image.fromarray(255 - page).convert("RGB"), moved)
    return shifted


def touching_the_border(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A picture cut so that a stroke touches its border."""
    return against(digit, rng, (0, 0, SIDE - 1, SIDE - 1), rng.uniform(0, 4))


def circled(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A ring drawn around the digit."""
    margins = rng.uniform(0.02, 0.08, 4) * SIDE
    box = np.array([margins[0], margins[1], SIDE - margins[2], SIDE - margins[3]])
    lines = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(lines).ellipse([*map(float, box)], outline=line_colour(rng),
                                  width=int(rng.integers(2, 9)))  # fmt: skip
    inside = (*(box[:2] + 0.2 * SIDE), *(box[2:] - 0.2 * SIDE))
    return darker(lines, placed(digit, rng, inside, rng.uniform(0.6, 0.9)))


def on_a_sheet(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A light sheet with the digit, turned a little, on a table of another colour."""
    margins = rng.uniform(0.08, 0.25, 4) * SIDE
    left, top, right, bottom = margins[0], margins[1], SIDE - margins[2], SIDE - margins[3]
    inside = (left + 9, top + 9, right - 9, bottom - 9)
    sheet = np.asarray(placed(digit, rng, inside, rng.uniform(0.4, 0.8)), np.float32)
    paper, ink = rng.uniform(225, 256, 3), rng.uniform(0, 70, 3)
    sheet = Image.fromarray((ink + sheet / 255 * (paper - ink)).astype(np.uint8))
    where = Image.new("L", (SIDE, SIDE))
    where.paste(255, tuple(map(round, (left, top, right, bottom))))
    angle = rng.uniform(-10, 10)
    table = Image.new("RGB", (SIDE, SIDE), tuple(map(int, rng.uniform(20, 150, 3))))
    sheet, where = (part.rotate(angle, Image.Resampling.BICUBIC) for part in (sheet, where))
    table.paste(sheet, mask=where)
    return grainy(table, rng, 4)


def grainy(picture: Image.Image, rng: np.random.Generator, deviation: float) -> Image.Image:
    """`picture` with a camera's noise."""
    pixels = np.asarray(picture, np.float32)
    pixels = pixels + rng.normal(0, deviation, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def in_hard_shadow(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A photo across which the sharp edge of a shadow runs, often through the digit."""
    page = placed(digit, rng, (20, 20, SIDE - 20, SIDE - 20), rng.uniform(0.4, 0.8))
    shade = Image.new("L", (SIDE, SIDE), 255)
    corner, angle = rng.uniform(0.25, 0.75, 2) * SIDE, rng.uniform(0, 2 * np.pi)
    opening = rng.uniform(0.5, 1) * np.pi  # a straight edge or a corner
    ways = np.linspace(angle, angle + opening, 3)
    points = [tuple(corner), *((corner + 900 * np.array([np.cos(w), np.sin(w)])) for w in ways)]
    darkness = rng.uniform(0.35, 0.7)
    ImageDraw.Draw(shade).polygon([tuple(map(float, p)) for p in points], int(255 * darkness))
    shade = shade.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    light = np.asarray(shade, np.float32)[..., None] / 255
    paper, ink = np.array([235, 228, 215]) + rng.uniform(-15, 15, 3), rng.uniform(0, 80, 3)
    covered = np.asarray(page, np.float32) / 255
    pixels = (ink + covered * (paper - ink)) * light
    return grainy(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), rng, 4)


def with_a_hairline(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A photo of a very thin pen: its ink covers less than 0.5 % of uneven paper."""
    side = 700
    length = 2 * round(side * rng.uniform(0.17, 0.25))
    fine = Image.fromarray(digit).resize((length // 2, length // 2), Image.Resampling.BICUBIC)
    line = Image.fromarray((255 * thinned(np.asarray(fine) > 110)).astype(np.uint8))
    pen = line.resize((length, length), Image.Resampling.BICUBIC)
    mask = np.zeros((side, side, 1), np.float32)
    x, y = rng.integers(20, side - length - 20, 2)
    mask[y : y + length, x : x + length, 0] = np.asarray(pen, np.float32) / 255
    small = Image.fromarray(rng.uniform(0, 255, (4, 4)).astype(np.uint8))
    blotches = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    paper = np.array([205, 198, 186]) * (1 - 0.22 * blotches[..., None] / 255)
    ink = np.array([[20, 20, 110], [25, 25, 25], [60, 20, 20]][rng.integers(3)])
    pixels = paper * (1 - mask) + ink * mask
    return grainy(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), rng, 4)


def thinned(mask: np.ndarray) -> np.ndarray:
    """Lines one pixel wide in the middle of the strokes of `mask`, (height, width) of bool.

    Zhang and Suen, "A fast parallel algorithm for thinning digital patterns", CACM 1984.
    """
    mask = np.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            around = [
                np.roll(mask, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            north, east, south, west = around[0], around[2], around[4], around[6]
            count = np.sum(around, axis=0)
            turns = np.sum(
                [~now & after for now, after in zip(around, around[1:] + around[:1], strict=True)],
                axis=0,
            )
            first_pair = ~(north & east & south) & ~(east & south & west)
            other_pair = ~(north & east & west) & ~(north & south & west)
            gone = mask & (count >= 2) & (count <= 6) & (turns == 1)
            gone &= first_pair if first else other_pair
            if gone.any():
                mask, changed = mask & ~gone, True
    return mask[1:-1, 1:-1]


def of_few_pixels(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Stretched into 16 x 16 pixels of black and white, as old scans are kept, then enlarged."""
    tight = Image.fromarray(tightly(digit))
    small = np.asarray(tight.resize((16, 16), Image.Resampling.BOX)) > rng.uniform(60, 130)
    page = np.pad(np.where(small, 0, 255).astype(np.uint8), rng.integers(0, 5), constant_values=255)
    side = 15 * len(page)
    return Image.fromarray(page).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
