"""MNIST's digits drawn again as picture files, in twenty-five ways."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from tp1_mnist_api import surroundings
from tp1_mnist_api.pens import drawing, transparent

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
WAYS: dict[str, tuple[Callable[..., Image.Image], str, dict[str, int]]] = {
    "white on black 28 px": (partial(drawing, side=28, ink=WHITE, paper=BLACK), "PNG", {}),
    "black on white 28 px": (partial(drawing, side=28), "PNG", {}),
    "16 px": (partial(drawing, side=16), "PNG", {}),
    "500 px": (partial(drawing, side=500), "PNG", {}),
    "2000 px": (partial(drawing, side=2000), "JPEG", {"quality": 85}),
    "small and off-centre": (partial(drawing, side=300, room=3), "PNG", {}),
    "any two colours": (partial(drawing, ink=None), "PNG", {}),
    "thin pen": (partial(drawing, stroke=-6), "PNG", {}),
    "thick pen": (partial(drawing, stroke=6), "PNG", {}),
    "JPEG of quality 10": (partial(drawing, side=120), "JPEG", {"quality": 10}),
    "noise of sd 25": (partial(drawing, noise=25), "JPEG", {"quality": 70}),
    "blurred": (partial(drawing, blur=6), "WEBP", {}),
    "light from one side": (partial(drawing, shade=0.5, noise=5), "JPEG", {}),
    "transparent background": (transparent, "PNG", {}),
    "ruled paper": (partial(drawing, room=1.5, ruled=True), "PNG", {}),
    "printed box": (surroundings.in_a_box, "PNG", {}),
    "three sides of a box": (partial(surroundings.in_a_box, sides=3), "PNG", {}),
    "box that the digit touches": (surroundings.touching_its_box, "PNG", {}),
    "cell of a table": (surroundings.in_a_table, "PNG", {}),
    "ring around the digit": (surroundings.circled, "PNG", {}),
    "sheet on a table": (surroundings.on_a_sheet, "JPEG", {}),
    "hard shadow": (surroundings.in_hard_shadow, "JPEG", {}),
    "hairline on uneven paper": (surroundings.with_a_hairline, "JPEG", {}),
    "stroke that touches the border": (surroundings.touching_the_border, "PNG", {}),
    "16x16 pixels of two colours": (surroundings.of_few_pixels, "PNG", {}),
}
"""How a digit is drawn, and the format and options of its file."""


def draw_file(way: str, digit: np.ndarray, rng: np.random.Generator) -> tuple[bytes, str]:
    """`digit`, (28, 28) in 0..255, as a picture file drawn in one of `WAYS`, and its media type."""
    draw, form, options = WAYS[way]
    file = io.BytesIO()
    draw(digit, rng).save(file, form, **options)
    return file.getvalue(), f"image/{form.lower()}"
