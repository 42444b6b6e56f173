"""Connected pieces of a mask, and what their shapes and places say."""

from dataclasses import dataclass

import numpy as np


def label(mask: np.ndarray, corners: bool = True) -> tuple[np.ndarray, int]:
    """Number the connected pieces of `mask`: (height, width) of 1 to n, 0 outside, and n.

    Pixels that meet at a corner only belong together if `corners`. Works on runs of pixels in a
    row, which are far fewer than pixels. SciPy has the same, and would make the container 80 MB
    larger.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    stops = np.nonzero(change == -1)[1]  # one behind the last pixel
    # Runs of the next row that overlap run i are first[i] to last[i] - 1.
    line = width + 2
    reach = 0 if corners else 1
    first = np.searchsorted(rows * line + stops, (rows + 1) * line + starts + reach)
    last = np.searchsorted(rows * line + starts, (rows + 1) * line + stops - reach, "right")
    parent = list(range(len(rows)))
    for run in np.flatnonzero(first < last).tolist():
        for other in range(first[run], last[run]):
            low, high = _root(parent, run), _root(parent, other)
            if low != high:
                parent[max(low, high)] = min(low, high)
    roots = np.array([_root(parent, run) for run in range(len(rows))], int)
    found, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(height * width + 1, int)
    # Each run adds its number at its start and takes it away behind its end.
    np.add.at(labels, rows * width + starts, numbers + 1)
    np.add.at(labels, rows * width + stops, -(numbers + 1))
    return np.cumsum(labels[:-1]).reshape(height, width), len(found)


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = run = parent[parent[run]]
    return run


@dataclass(frozen=True)
class Pieces:
    """The pieces of a mask: `labels` (height, width), and for piece i at index i - 1 the rest."""

    labels: np.ndarray
    sizes: np.ndarray
    tops: np.ndarray
    bottoms: np.ndarray
    lefts: np.ndarray
    rights: np.ndarray
    contacts: np.ndarray
    """Pixels on the picture's border."""

    @property
    def heights(self) -> np.ndarray:
        """Rows from the first to the last pixel."""
        return self.bottoms - self.tops + 1

    @property
    def widths(self) -> np.ndarray:
        """Columns from the first to the last pixel."""
        return self.rights - self.lefts + 1

    @property
    def lengths(self) -> np.ndarray:
        """The longer side of each."""
        return np.maximum(self.heights, self.widths)


def pieces_of(mask: np.ndarray, corners: bool = True) -> Pieces:
    """`mask` in pieces. Usage: `pieces_of(ink > 0).sizes`."""
    labels, count = label(mask, corners)
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns] - 1
    tops, lefts = np.full(count, mask.shape[0]), np.full(count, mask.shape[1])
    bottoms, rights = np.full(count, -1), np.full(count, -1)
    np.minimum.at(tops, which, rows)
    np.maximum.at(bottoms, which, rows)
    np.minimum.at(lefts, which, columns)
    np.maximum.at(rights, which, columns)
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    return Pieces(
        labels,
        np.bincount(which, minlength=count),
        tops,
        bottoms,
        lefts,
        rights,
        np.bincount(border, minlength=count + 1)[1:],
    )


def kept(pieces: Pieces, which: np.ndarray) -> np.ndarray:
    """The mask of those pieces for which `which`, (n,) of bool, is true."""
    return np.concatenate([[False], which])[pieces.labels]
