"""Tell ink from its ground, whatever the colours, the polarity and the light."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tp1_mnist_api.serving.inputs import InputError
from tp1_mnist_api.serving.pieces import pieces_of

WEAK, FULL = 0.15, 0.5
"""What counts as no ink and as full ink, as fractions of the darkest."""
LEAST_DISTANCE = 25
"""Colours nearer than this, as a length in RGB of 0..255, can't be told apart."""
TWO_COLOURS = 90
"""If half of the edge is further than this from its median, in R + G + B, it has no one colour."""
LEAST_PIXELS = 8
"""Fewer that differ clearly from the ground are dust."""
LONG_CONTACT = 0.12
"""If more than this part of the border isn't ground, it may be light or shadow."""
STROKE_STRENGTH = 0.85
"""Strokes that touch the border are stronger than this, shadows are weaker than the ink."""
LEAST_SHARE = 0.03
"""Share of the light that ink takes away at least."""
DARK_GROUND = 110
LEAST_UNEVEN = 40
"""Smaller pictures show no shadows."""
NARROW_WINDOW, WINDOW, WIDE_WINDOW = 0.08, 0.2, 0.3
"""Sides of the neighbourhood whose lightest (or darkest) colour is the local ground, as fractions
of the picture's shorter side: for thin pens, for others, and to find out whether it is needed."""


class Light(NamedTuple):
    """What a picture's light is like: found once, and used for a closer look at a part of it."""

    is_uneven: bool
    ink_is_dark: bool
    """Of use on uneven ground only; elsewhere polarity doesn't matter."""


def ink_of(picture: np.ndarray, light: Light | None = None) -> tuple[np.ndarray, float, Light]:
    """Ink of `picture`, (height, width, 3) in 0..255, as (height, width) in 0..1.

    Returned with the distance of colours that counts as full ink, and with the light, which is
    found out if it isn't known. Raises `InputError` where there is nothing to see.
    """
    distance, strongest, edge = from_the_plane(picture)
    ink = stretched(distance / strongest, edge)
    if light is None:
        light = _light_of(picture, distance / strongest, ink, edge)
    if light.is_uneven:
        # In as narrow a neighbourhood as the strokes allow.
        narrow, wide = (
            _local(picture, window, light.ink_is_dark, edge) for window in (NARROW_WINDOW, WINDOW)
        )
        local = narrow if (narrow > FULL).sum() > 0.9 * (wide > FULL).sum() else wide
        ink = local if local.any() else ink
    return ink, strongest, light


def _light_of(
    picture: np.ndarray, distance: np.ndarray, ink: np.ndarray, edge: np.ndarray
) -> Light:
    """Whether light or shadow is taken for ink: the local ground explains most of it away."""
    even = Light(False, True)
    if min(ink.shape) < LEAST_UNEVEN:
        return even
    contact = max(_contact(ink), _contact(distance > WEAK))
    between = np.mean((distance > WEAK) & (distance < FULL))
    is_blotched = between > max(0.06, np.mean(distance >= FULL))
    if contact < LONG_CONTACT and not is_blotched:
        return even
    uneven = Light(True, _ink_is_dark(picture))
    local = _local(picture, WIDE_WINDOW, uneven.ink_is_dark, edge)
    if not local.any():
        return even
    if is_blotched and np.mean(local > 0) < 0.5 * np.mean(ink > 0):
        return uneven
    if _contact(local) > 0.4 * contact:
        return even
    border = _border(distance)
    pieces = pieces_of(local > 0)
    main = pieces.sizes.argmax()
    is_whole = pieces.contacts[main] == 0 and pieces.lengths[main] > 0.3 * min(ink.shape)
    is_weak = np.median(border[border > WEAK]) < STROKE_STRENGTH
    return uneven if is_whole or is_weak else even


def _local(picture: np.ndarray, window: float, ink_is_dark: bool, edge: np.ndarray) -> np.ndarray:
    """Ink against the ground around it, as (height, width) in 0..1; no ink where no line is."""
    side = round(window * min(picture.shape[:2])) | 1
    local = from_the_neighbourhood(picture if ink_is_dark else 255 - picture, side)
    strongest = np.percentile(local, 99.9)
    if strongest < LEAST_SHARE:
        return np.zeros(local.shape)
    return stretched(np.clip(local / strongest, 0, 1), edge)


def _contact(ink: np.ndarray) -> float:
    """Part of the picture's border that is ink, without thin lines along or out of the picture."""
    side = round(0.05 * min(ink.shape)) | 1
    found = []
    for depth in (0, side // 2):
        border = _border(ink[depth : ink.shape[0] - depth, depth : ink.shape[1] - depth])
        border = (border > 0).astype(np.float32)
        for turn in (np.minimum, np.maximum):
            border = _over_window(border, side, 0, turn)
        found.append(border.mean())
    return float(min(found))


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def from_the_plane(picture: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """How far each pixel's colour is from the ground's, (height, width), the distance that counts
    as full ink, and which pixels are the picture's edge.

    The ground is a plane fitted to the edge, so that neither colour, polarity nor light that falls
    from one side matter.
    """
    height, width, _ = picture.shape
    if min(height, width) < 8:
        raise InputError(f"picture: {width}x{height} pixels are too few, 8x8 are needed", "picture")
    down, right = np.mgrid[0:height, 0:width]
    plane = np.stack([down / height, right / width, np.ones_like(down, float)], axis=-1)
    edge = np.ones((height, width), bool)
    frame = max(1, min(height, width) // 20)
    edge[frame:-frame, frame:-frame] = False
    colours = picture[edge]
    # Ink that touches the edge must not tilt the plane: keep the pixels near the median colour.
    distance = np.abs(colours - np.median(colours, axis=0)).sum(axis=1)
    usual = np.median(distance)
    if usual > TWO_COLOURS:  # lines along the edge: the median lies between ink and paper
        shades = (colours.sum(axis=1) // 96).astype(int)
        most = shades == np.bincount(shades).argmax()
        distance = np.abs(colours - np.median(colours[most], axis=0)).sum(axis=1)
        usual = np.quantile(distance, 0.3)
    near = distance <= max(3 * usual, 12)
    coefficients, *_ = np.linalg.lstsq(plane[edge][near], colours[near], rcond=None)
    distance = np.linalg.norm(picture - plane @ coefficients, axis=-1)
    strongest = np.percentile(distance, 99.5)
    if strongest < LEAST_DISTANCE:  # a very thin line, or a small digit in a large picture
        few = np.sort(distance, axis=None)[-LEAST_PIXELS]
        strongest = few if few > 2 * LEAST_DISTANCE else strongest
    if strongest < LEAST_DISTANCE:
        raise InputError("picture: nothing to see, all pixels are nearly the same", "picture")
    return np.minimum(distance, strongest), float(strongest), edge


def from_the_neighbourhood(picture: np.ndarray, side: int) -> np.ndarray:
    """How much darker each pixel is than the ground around it, (height, width) from 0.

    Black top-hat transform: what a closing of `side` fills, that is dark lines narrower than it,
    so that the border of a shadow leaves no trace.
    """
    ground = closed(_calm(picture), side)
    # Ink takes away a share of the light: in the shadow as well as outside.
    return np.linalg.norm(np.maximum(ground - picture, 0) / (ground + 20), axis=-1)


def _ink_is_dark(picture: np.ndarray) -> bool:
    """Whether the lines are darker than the ground: surely on paper, not on a blackboard."""
    calm = _calm(picture)
    if np.median(calm) > DARK_GROUND:
        return True
    side = round(0.06 * min(picture.shape[:2])) | 1
    dark = np.linalg.norm(closed(calm, side) - picture, axis=-1)
    light = np.linalg.norm(closed(255 - calm, side) - (255 - picture), axis=-1)
    return bool(1.5 * np.percentile(dark, 99.7) >= np.percentile(light, 99.7))


def _calm(picture: np.ndarray) -> np.ndarray:
    """`picture` without single pixels that differ from all around them."""
    image = Image.fromarray(picture.astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
    return np.asarray(image, np.float32)


def closed(values: np.ndarray, side: int) -> np.ndarray:
    """Largest, then smallest value of each neighbourhood of `side` x `side` pixels."""
    for turn in (np.maximum, np.minimum):
        for axis in (0, 1):
            values = _over_window(values, side, axis, turn)
    return values


def _over_window(values: np.ndarray, side: int, axis: int, turn: np.ufunc) -> np.ndarray:
    """`turn` over windows of `side`, an odd number, along `axis`; doubled step by step."""
    half = side // 2
    widths = [(half, half) if number == axis else (0, 0) for number in range(values.ndim)]
    nothing = -np.inf if turn is np.maximum else np.inf
    values = np.moveaxis(np.pad(values, widths, constant_values=nothing), axis, 0)
    length = 1
    while 2 * length <= side:
        values = turn(values[:-length], values[length:])
        length *= 2
    if rest := side - length:
        values = turn(values[:-rest], values[rest:])
    return np.moveaxis(values, 0, axis)


def stretched(ink: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """`ink` with the ground at 0 and faint lines, as of a thin pen, made stronger."""
    strong = otsu(ink)
    # Grain, and lines that run out of the picture; strokes that do so are stronger.
    noise = np.percentile(ink[edge], 99)
    weak = min(max(WEAK, 1.3 * noise), 0.9 * strong)
    return np.clip((ink - weak) / (max(strong, FULL) - weak), 0, 1)


def otsu(ink: np.ndarray) -> float:
    """Threshold that splits values in 0..1 into two groups of least spread (Otsu 1979)."""
    counts, edges = np.histogram(ink, 64, (0, 1))
    middle = (edges[:-1] + edges[1:]) / 2
    below, weight = np.cumsum(counts), np.cumsum(counts * middle)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weight / below - (weight[-1] - weight) / above) ** 2
    return float(edges[1 + np.nanargmax(between)])
