"""Cut away what surrounds a digit: a printed box, the lines of a table, a ring, the table under a
sheet of paper."""

import numpy as np
from PIL import Image, ImageDraw

from tp1_mnist_api.serving import ground
from tp1_mnist_api.serving.pieces import kept, pieces_of

MOST_CUTS = 3
LEAST_INSIDE = 0.15
"""Least side of what a frame encloses, as a fraction of the picture's."""
LEAST_CONTENT = 0.2
"""Least height of what counts as a digit inside, as a fraction of the frame's."""
COVERAGE = 0.85
"""Part of a side that a straight line must cover."""
THICKEST = 0.09
"""Largest width of a frame's line, as a fraction of the frame's height."""
STEEPEST = 0.08
"""Largest slope of a frame's line, as the tangent of its angle."""


def inside_frames(picture: np.ndarray) -> np.ndarray:
    """Mask of what the frames in `picture`, (height, width, 3) in 0..255, enclose.

    All true where there are none. Raises `InputError` where there is nothing to see.
    """
    inside = np.ones(picture.shape[:2], bool)
    for _ in range(MOST_CUTS):
        box = box_of(inside, 0)
        part = filled_outside(picture, inside)[box]
        distance, strongest, edge = ground.from_the_plane(part)
        mask = ground.stretched(distance / strongest, edge) > 0
        found = _sheet(part, mask)
        if found is None:
            found = _enclosed(mask)
        if found is None:
            found = _between_lines(mask)
        if found is None:
            break
        inside[box] &= found
        inside[: box[0].start] = inside[box[0].stop :] = False
        inside[:, : box[1].start] = inside[:, box[1].stop :] = False
    return inside


def box_of(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns around what is true in `mask`, and `margin` more inside the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return tuple(
        slice(max(0, found[0] - margin), min(length, found[-1] + 1 + margin))
        for found, length in zip((rows, columns), mask.shape, strict=True)
    )


def filled_outside(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`picture` with the usual colour of what is `inside` everywhere else."""
    if inside.all():
        return picture
    return np.where(inside[..., None], picture, np.median(picture[inside], axis=0))


def _filled(region: np.ndarray) -> np.ndarray:
    """`region` with its holes, all that can't be reached from the border without crossing it."""
    holes = pieces_of(~np.pad(region, 1), corners=False)
    return ~kept(holes, holes.contacts > 0)[1:-1, 1:-1]


def _enclosed(mask: np.ndarray) -> np.ndarray | None:
    """The inside of a closed line, of any shape, that has a digit inside; None if there is none."""
    rooms = pieces_of(~mask, corners=False)
    least = max(16, LEAST_INSIDE * min(mask.shape))
    closed = (rooms.contacts == 0) & (np.minimum(rooms.heights, rooms.widths) >= least)
    for room in np.argsort(-rooms.sizes):
        if not closed[room]:
            continue
        inside = _filled(rooms.labels == room + 1)
        content = pieces_of(inside & mask)
        if len(content.sizes) and content.lengths.max() >= LEAST_CONTENT * rooms.heights[room]:
            return inside
    return None


def _sheet(picture: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """A four-cornered sheet of paper of one colour with something on it; None if there is none."""
    pieces = pieces_of(mask)
    if not len(pieces.sizes):
        return None
    largest = int(pieces.sizes.argmax())
    sheet = _filled(pieces.labels == largest + 1)
    if pieces.sizes[largest] < 0.6 * sheet.sum():  # a line around something
        return None
    height, width = mask.shape
    ends = (pieces.tops, pieces.lefts, height - 1 - pieces.bottoms, width - 1 - pieces.rights)
    if sum(end[largest] == 0 for end in ends) > 1:  # a shadow rather than a sheet
        return None
    shorter = min(pieces.heights[largest], pieces.widths[largest])
    if shorter < 0.25 * min(mask.shape) or 3 * shorter < pieces.lengths[largest]:
        return None
    if _likeness_to_a_quadrilateral(sheet) < 0.93:
        return None
    inner = _eroded(sheet, 3)  # its edge is a mixture of two colours
    if not inner.any():
        return None
    paper = np.median(picture[inner], axis=0)
    distance = np.linalg.norm(picture - paper, axis=-1)
    contrast = np.percentile(distance[inner], 99.5)
    if np.percentile(distance[inner], 60) > max(15, 0.15 * contrast):
        return None
    written = inner & (distance > max(ground.LEAST_DISTANCE, 0.4 * contrast))
    if not 0.002 < written.sum() / inner.sum() < 0.3:
        return None
    content = pieces_of(written)
    rows = np.ptp(np.flatnonzero(sheet.any(axis=1)))
    if content.lengths.max() < LEAST_CONTENT * rows:
        return None
    main = content.labels == 1 + content.sizes.argmax()
    rim = inner & ~_eroded(inner, 1)
    if (main & rim).any():  # a shadow's edge that runs through the digit
        return None
    return inner


def _eroded(region: np.ndarray, steps: int) -> np.ndarray:
    """`region` without its outermost pixels."""
    for _ in range(steps):
        padded = np.pad(region, 1)
        region = (
            region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return region


def _likeness_to_a_quadrilateral(region: np.ndarray) -> float:
    """Intersection over union of `region` and the quadrilateral between its outermost points.

    Nearly 1 for a sheet of paper, also in perspective, 0.64 for an ellipse.
    """
    rows, columns = np.nonzero(region)
    best = 0.0
    for down, right in ((1, 1), (0.3, 1), (1, 0.3)):
        corners = [
            int(np.argmax(a * rows + b * columns))
            for a, b in ((-down, -right), (-right, down), (down, right), (right, -down))
        ]
        drawn = Image.new("1", region.shape[::-1])
        points = [(int(columns[corner]), int(rows[corner])) for corner in corners]
        ImageDraw.Draw(drawn).polygon(points, fill=1)
        drawn = np.asarray(drawn)
        best = max(best, (drawn & region).sum() / (drawn | region).sum())
    return float(best)


def _between_lines(mask: np.ndarray) -> np.ndarray | None:
    """The inside of straight lines on at least three sides; None if there are fewer."""
    pieces = pieces_of(mask)
    mask = kept(pieces, pieces.sizes > 0.002 * mask.size) if len(pieces.sizes) else mask
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    part = mask[box]
    if min(part.shape) < 16:
        return None
    inside, missing = np.ones(part.shape, bool), 0
    for side in range(4):
        turned = np.rot90(part, side)
        line = _line(turned) if turned[: _upper(turned)].any(axis=0).mean() >= COVERAGE else None
        if line is not None:
            inside &= np.rot90(line, -side)
            continue
        missing += 1
        if missing > 1:
            return None
    if not inside.any():
        return None
    content = pieces_of(part & inside)
    if not len(content.sizes) or content.lengths.max() < LEAST_CONTENT * part.shape[0]:
        return None
    if (part & inside).sum() < 0.002 * part.size:
        return None
    whole = np.zeros(mask.shape, bool)
    whole[box] = inside
    return whole


def _upper(mask: np.ndarray) -> int:
    """How many rows of `mask` may hold its upper line."""
    return int(0.45 * len(mask))


def _line(mask: np.ndarray) -> np.ndarray | None:
    """What lies below the innermost straight line in the upper part of `mask`, None without one."""
    height, width = mask.shape
    columns = np.arange(width)
    reach = max(1, int(STEEPEST * width / 2))
    upper = _upper(mask)
    thick = np.pad(mask, ((reach, reach), (0, 0)))
    thick = thick | np.roll(thick, 1, 0)
    rows = np.arange(int(0.6 * height))[:, None] + reach
    best = None
    for tilt in range(-reach, reach + 1):
        shift = np.round(tilt * (2 * columns / (width - 1) - 1)).astype(int)
        coverage = thick[rows + shift, columns].mean(axis=1)
        most = coverage[:upper].max()
        if most >= COVERAGE and (best is None or most > best[0]):
            best = (most, coverage, shift)
    if best is None:
        return None
    _, coverage, shift = best
    row = first = int(np.flatnonzero(coverage[:upper] >= COVERAGE)[-1])
    while first > 0 and coverage[first - 1] > 0.5:
        first -= 1
    while row + 1 < len(coverage) and coverage[row + 1] > 0.5:
        row += 1
    if row - first > max(3, THICKEST * height):
        return None
    return np.arange(height)[:, None] > row + 1 + shift
