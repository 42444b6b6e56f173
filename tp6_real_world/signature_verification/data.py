"""Signatures of many writers, genuine and forged, on equal canvases, split by writer.

CEDAR (Kalera, Srihari, Xu, "Offline signature verification and identification using distance
statistics", IJPRAI 2004): 55 writers, 24 genuine signatures and 24 forgeries of each. Two layouts
are read: CEDAR's, `full_org/original_<writer>_<number>.png` and `full_forg/forgeries_...`, and one
folder per writer, `<writer>/genuine/*` and `<writer>/forged/*`, or `<writer>/forged/<forger>/*`
where it is known who forged.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

import labkit
from labkit.files import UNREADABLE, DataError, Origin, entries, obtain
from tp6_real_world.signature_verification import ink, strokes

ORIGIN = Origin(
    name="CEDAR signatures",
    credit="M. K. Kalera, S. Srihari, A. Xu; CEDAR, University at Buffalo",
    licence="none stated",
    files=("cedar", "signatures"),
    page="https://cedar.buffalo.edu/NIJ/data/",
    sample="generated pen strokes of 15 writers who don't exist",
)
FOLDS = 5
SPLIT_SEED = 816
"""Of the order in which writers are dealt to the folds."""
CEDAR_NAME = re.compile(r"(original|forgeries)_(\d+)_(\d+)\.(png|jpe?g|tiff?|bmp)", re.IGNORECASE)
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MOST_PIXELS = 50_000_000
"""Of a picture, before it is decoded: a few kilobytes can unpack to gigabytes."""
CEDAR_WRITERS, CEDAR_EACH = 55, 24
LEAST_GENUINE, LEAST_FORGED = 2, 1
"""Of each writer: a reference and a query, and something to tell from them."""
EACH_FORGER = 8
"""CEDAR's forgeries of a writer are numbered by forger, eight of each of three."""


@dataclass(frozen=True)
class Signatures(labkit.Part):
    """Signatures of some writers; x is (n, 64, 128) uint8, 255 = ink; y (n,), 1 = forged."""

    writers: np.ndarray
    """(n,) int, whose signature it is or claims to be."""
    hands: np.ndarray
    """(n,) int, who wrote it: 0 the writer, 1, 2... forgers of this writer, -1 some forger."""
    facts: np.ndarray
    """(n, 22) float32 of the files, see `facts_of`: what no network gets."""

    def chosen(self, rows: np.ndarray) -> Signatures:
        """Those of `rows`, a mask or indices."""
        return Signatures(
            self.x[rows], self.y[rows], self.writers[rows], self.hands[rows], self.facts[rows]
        )


def load(
    choice: labkit.DataChoice = "auto",
    smoke: bool = False,
    fold: int = 0,
    folder: Path | None = None,
) -> labkit.Data:
    """Three parts without a common writer: fold `fold` is tested, the next one validates.

    Of 55 writers 33 train, 11 validate and 11 are tested; over folds 0 to 4 each is tested once.
    `folder` is the user's own, in either layout.
    """
    make_sample = partial(strokes.sample, 10, 12, 4) if smoke else strokes.sample
    everything, source = obtain(ORIGIN, choice, read, lambda: signatures_of(make_sample()), folder)
    if smoke:  # a few of the first writers
        first = np.unique(everything.writers)[:10]
        everything = everything.chosen(np.isin(everything.writers, first))
    writers = everything.writers
    parts = split(np.unique(writers), fold)
    return labkit.Data(source, *(everything.chosen(np.isin(writers, of)) for of in parts))


def split(writers: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Writers (n,) who train, validate and are tested in `fold`, 0 to 4."""
    order = np.random.default_rng(SPLIT_SEED).permutation(writers)
    groups = np.array_split(order, FOLDS)
    test, validation, *training = (groups[(fold + place) % FOLDS] for place in range(FOLDS))
    return np.concatenate(training), validation, test


def read(root: Path) -> tuple[Signatures, str]:
    """All signatures below `root`, and the SHA-256 of all files in order.

    Raises `DataError` for a folder in neither layout, fewer than five writers, a writer with too
    few signatures, a picture that can't be read or has no ink, and for one picture under two names,
    naming both.
    """
    found = in_cedars_layout(root) or in_folders(root)
    if not found:
        raise DataError(
            f"{root}: neither full_org/original_<writer>_<number>.png and full_forg/forgeries_... "
            "nor <writer>/genuine/ and <writer>/forged/ with pictures"
        )
    digest = hashlib.sha256()
    pictures = []
    for path, writer, hand in tqdm(found, desc="signatures", unit="file", leave=False):
        content = path.read_bytes()
        digest.update(content)
        pictures.append((path.relative_to(root), writer, hand, read_picture(path)))
    names = {name: index for index, name in enumerate(dict.fromkeys(w for _, w, *_ in pictures))}
    if len(names) < FOLDS:
        raise DataError(f"{root}: {len(names)} writers; {FOLDS} or more are needed to split")
    signatures = signatures_of(
        [(names[w], hand, grey) for _, w, hand, grey in pictures],
        [str(path) for path, *_ in pictures],
    )
    for name, index in names.items():
        of_hands = signatures.y[signatures.writers == index]
        for kind, count, least in (
            ("genuine", int((of_hands == 0).sum()), LEAST_GENUINE),
            ("forged", int((of_hands == 1).sum()), LEAST_FORGED),
        ):
            if count < least:
                raise DataError(
                    f"{root}: writer {name} has {count} {kind} signatures, {least} or more needed"
                )
    if root.name == ORIGIN.files[0] and len(pictures) != 2 * CEDAR_WRITERS * CEDAR_EACH:
        print(
            f"note: {root} holds {len(names)} writers and {len(pictures)} pictures; "
            f"CEDAR has {CEDAR_WRITERS} writers with {CEDAR_EACH} + {CEDAR_EACH} each"
        )
    return signatures, digest.hexdigest()


def in_cedars_layout(root: Path) -> list[tuple[Path, str, int]]:
    """(file, writer, hand) of CEDAR's own layout, by number; empty for another one."""
    found = []
    for folder, forged in (("full_org", 0), ("full_forg", 1)):
        for path in entries(root / folder):
            if match := CEDAR_NAME.fullmatch(path.name):
                found.append((int(match[2]), forged, int(match[3]), path))
    return [
        (path, str(writer), 1 + (number - 1) // EACH_FORGER if forged else 0)
        for writer, forged, number, path in sorted(found)
    ]


def in_folders(root: Path) -> list[tuple[Path, str, int]]:
    """(file, writer, hand) of one folder per writer; empty for another layout."""
    found = []
    for folder in entries(root):
        forgers = [path for path in entries(folder / "forged") if path.is_dir()]
        of_hands = [(0, folder / "genuine"), (-1, folder / "forged"), *enumerate(forgers, 1)]
        for hand, place in of_hands:
            pictures = [path for path in entries(place) if path.suffix.lower() in PICTURES]
            found += [(path, folder.name, hand) for path in pictures]
    return found


def read_picture(path: Path) -> np.ndarray:
    """A picture file as (h, w) uint8, dark ink on bright paper. Raises `DataError` naming it.

    What is transparent is paper; the rotation that a camera noted is applied.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise DataError(
                    f"{path}: {picture.width}x{picture.height} pixels, more than {MOST_PIXELS:,}"
                )
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
            paper = Image.new("RGBA", upright.size, "white")
            return np.asarray(Image.alpha_composite(paper, upright).convert("L"))
    except (*UNREADABLE, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"{path}: no picture that can be read ({error})") from error


def signatures_of(
    pictures: list[tuple[int, int, np.ndarray]], names: list[str] | None = None
) -> Signatures:
    """(writer, hand, grey picture) of each as the network sees it.

    Raises `DataError` naming a picture without ink, and the pair where two are the same.
    """
    names = names or [f"picture {index}" for index in range(len(pictures))]
    canvases = []
    for (_, _, grey), name in zip(pictures, names, strict=True):
        try:
            canvases.append(ink.prepare(grey))
        except ink.NoSignatureError as error:
            raise DataError(f"{name}: {error}") from error
    x = np.array(canvases)
    if pairs := duplicates(x):
        shown = "; ".join(f"{names[first]} = {names[second]}" for first, second in pairs[:5])
        raise DataError(
            f"{len(pairs)} signatures appear twice, which no hand can do: {shown}. Remove one of "
            "each pair: a verifier would be asked for what it has seen"
        )
    writers, hands = (np.array([row[place] for row in pictures], np.int64) for place in (0, 1))
    facts = np.array([facts_of(grey) for _, _, grey in pictures])
    return Signatures(x, (hands != 0).astype(np.int64), writers, hands, facts)


def facts_of(grey: np.ndarray) -> np.ndarray:
    """What a picture (h, w) uint8 tells besides handwriting, (22,) float32.

    Blank margins (top, bottom, left, right, as shares), mean grey, the most frequent grey, which is
    the paper's, and the shares of pixels in 16 steps of grey.
    """
    dark = grey < 128
    margins = []
    for axis in (1, 0):
        filled = np.flatnonzero(dark.any(axis=axis))
        size = dark.shape[1 - axis]
        first, last = (filled[0], filled[-1]) if len(filled) else (size, -1)
        margins += [first / size, (size - 1 - last) / size]
    counts = np.bincount(grey.ravel(), minlength=256)
    steps = counts.reshape(16, 16).sum(axis=1) / grey.size
    return np.array([*margins, grey.mean(), counts.argmax(), *steps], np.float32)


def duplicates(x: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, later) of rows of `x` with the same canvas to the last pixel."""
    first: dict[bytes, int] = {}
    found = []
    for index, canvas in enumerate(x):
        before = first.setdefault(canvas.tobytes(), index)
        if before != index:
            found.append((before, index))
    return found


def describe(part: Signatures) -> str:
    """Writers and signatures of a part, for people."""
    counts = Counter(part.y.tolist())
    return f"{len(np.unique(part.writers))} writers, {counts[0]} genuine, {counts[1]} forged"
