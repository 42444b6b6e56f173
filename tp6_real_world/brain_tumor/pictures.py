"""Pictures of heads from the web, with a tumour or without, and who is a copy of whom.

The layout is that of Kaggle's sets: `<root>/yes/*.jpg`, `<root>/no/*.jpg`, or with parts given,
`<root>/Training/<class>/*` and `<root>/Testing/<class>/*`. A class called `no`, `notumor` or
`healthy` has no tumour, all others have one.

Such sets are collected from search engines and other sets: the same scan comes back under another
name, size or compression, and there are no patients' names. Pictures are therefore put into groups
before any split: identical pixels, or perceptual hashes (imagehash's pHash: the signs of an image's
lowest cosine frequencies) that nearly agree, confirmed by the correlation of small versions. Two
pictures of one group are never on both sides of a split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

import labkit
from labkit.files import DataError, Origin, entries
from tp6_real_world.brain_tumor.phantoms import phantom

imagehash = labkit.lazy("imagehash")

ORIGIN = Origin(
    name="Brain MRI pictures, yes and no",
    credit="N. Chakrabarty (Kaggle)",
    licence="not stated for the images",
    files=("brain_tumor_yes_no", "brain_tumor_dataset"),
    page="https://www.kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection",
    sample="120 pictures of generated heads, twenty of them copies",
)  # fmt: skip
SIZE = 96
"""Side of a picture once it is cropped to the head, pixels."""
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
WITHOUT = {"no", "notumor", "notumour", "healthy", "normal", "negative", "0"}
"""Names of the class without a tumour, in small letters and without signs."""
MOST_BITS = 12
"""Of 64 bits of pHash that may differ between two pictures of one scan..."""
LEAST_CORRELATION = 0.92
"""...whose versions of 32x32 pixels must then correlate at least so much."""


@dataclass(frozen=True)
class Copies:
    """Two pictures that show the same."""

    first: str
    second: str
    kind: str
    """`exact`: the same pixels; `near`: the same scan."""
    across: bool
    """Whether one is in a given training folder and the other in a given test folder."""


@dataclass(frozen=True)
class Pictures:
    """A set of pictures, one row each."""

    images: np.ndarray
    """(n, 96, 96) uint8, cropped to the head."""
    labels: np.ndarray
    """(n,) int, 1 with a tumour."""
    groups: np.ndarray
    """(n,) int; pictures of one group show the same scan."""
    names: np.ndarray
    """(n,) str, the path below the set's folder."""
    given: np.ndarray
    """(n,) str, `train` or `test` where folders say so, else empty."""
    copies: list[Copies]

    def count(self, kind: str, across: bool) -> int:
        """Pictures that are superfluous: with a copy earlier in the same part, or, `across`, test
        pictures with a copy in training. A near copy that is also an exact one counts as exact."""
        second = {
            copy.second for copy in self.copies if copy.across == across and copy.kind == kind
        }
        if kind == "near":
            second -= {c.second for c in self.copies if c.across == across and c.kind == "exact"}
        return len(second)

    def in_words(self) -> str:
        """How many pictures there are, how many copies, and what they are copies of."""
        parts = Counter(self.given)
        told = [
            f"{len(self.names):,} pictures, {int(self.labels.sum()):,} with a tumour, in "
            f"{len(np.unique(self.groups)):,} groups of the same scan.",
            f"Copies within a part: {self.count('exact', False):,} exact, "
            f"{self.count('near', False):,} near.",
        ]
        if parts["train"] and parts["test"]:
            told.append(
                f"Given parts: {parts['train']:,} training, {parts['test']:,} test pictures. Test "
                f"pictures with a copy in training: {self.count('exact', True):,} exact, "
                f"{self.count('near', True):,} near."
            )
        mixed = [
            group for group in np.unique(self.groups)
            if len(np.unique(self.labels[self.groups == group])) > 1
        ]  # fmt: skip
        if mixed:
            told.append(f"Groups with both labels: {len(mixed):,}.")
        return " ".join(told)

    def pairs_in_words(self, most: int = 100) -> str:
        """The copies by name, those across given parts first, a line each."""
        ordered = sorted(self.copies, key=lambda copy: not copy.across)
        lines = [
            f"- {copy.kind} copy{' in training and test' if copy.across else ''}: "
            f"{copy.first} = {copy.second}\n"
            for copy in ordered[:most]
        ]
        if len(ordered) > most:
            lines.append(f"- ... and {len(ordered) - most:,} more\n")
        return "".join(lines)


# --- Reading -------------------------------------------------------------------------------------


def read(root: Path) -> tuple[Pictures, str]:
    """All pictures below `root` and the SHA-256 of their files.

    Raises `DataError` naming a damaged file, or what the layout lacks.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no folder")
    files = [path for path in entries(root, "**/*") if path.suffix.lower() in ENDINGS]
    digest, looks, labels, given, names = hashlib.sha256(), [], [], [], []
    for path in files:
        looks.append(look(read_grey(path)))
        digest.update(path.read_bytes())
        names.append(path.relative_to(root).as_posix())
        labels.append(int(re.sub(r"[\W_]", "", path.parent.name.lower()) not in WITHOUT))
        given.append(_given(path.relative_to(root)))
    if len(set(labels)) < 2:
        raise DataError(f"{root}: {len(files)} pictures; folders yes and no are needed")
    return collect(looks, np.array(labels), names, given), digest.hexdigest()


def _given(path: Path) -> str:
    """`train` or `test`, if a folder above the class says so."""
    above = " ".join(path.parts[:-2]).lower()
    return "train" if "train" in above else "test" if "test" in above else ""


def collect(looks: list[Look], labels: np.ndarray, names: list[str], given: list[str]) -> Pictures:
    """Find copies among pictures and group them."""
    copies = find_copies(looks, names, given)
    return Pictures(
        np.stack([each.cropped for each in looks]),
        labels,
        _connected(names, copies),
        np.array(names),
        np.array(given),
        copies,
    )


def read_grey(path: Path) -> Image.Image:
    """A picture in grey values. Raises `DataError` for a damaged file."""
    return read_rgb(path).convert("L")


def read_sequences(path: Path) -> np.ndarray:
    """A slice's three channels (h, w, 3) float32; one in grey is the same in all three.

    LGG's are T1, FLAIR, T1 with contrast medium. Raises `DataError` for a damaged file.
    """
    return np.asarray(read_rgb(path), np.float32)


def read_rgb(path: Path) -> Image.Image:
    """A picture as its camera held it; more than 8 bits are brought to 0..255.

    What is transparent is black. Raises `DataError` for a damaged file.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                values = np.asarray(image, np.float32)
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                scaled = np.nan_to_num((values - low) / max(high - low, 1e-6))
                return Image.fromarray((255 * scaled).astype(np.uint8)).convert("RGB")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            black = Image.new("RGBA", upright.size, "black")
            return Image.alpha_composite(black, upright).convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error


def crop(grey: Image.Image, size: int = SIZE) -> np.ndarray:
    """The head's bounding box, padded to a square and resized: (size, size) uint8.

    Margins tell where a picture comes from, and that must not tell whether there is a tumour.
    """
    values = np.asarray(grey)
    bright = values > max(8.0, 0.15 * float(np.percentile(values, 99)))
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if len(rows) and len(columns):
        grey = grey.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    return np.asarray(ImageOps.pad(grey, (size, size), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Look:
    """What is kept of a picture: thousands of them at full size would fill the memory."""

    pixels: bytes
    """Digest of its size and pixels."""
    bits: np.ndarray
    """(64,) bool, its perceptual hash."""
    small: np.ndarray
    """(1024,) float32, 32x32 pixels with mean 0 and length 1."""
    cropped: np.ndarray
    """(96, 96) uint8."""


def look(grey: Image.Image) -> Look:
    """Everything that is needed of a grey picture."""
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float32).ravel()
    small -= small.mean()
    return Look(
        hashlib.sha256(f"{grey.size}".encode() + grey.tobytes()).digest(),
        imagehash.phash(grey).hash.ravel(),
        small / max(float(np.linalg.norm(small)), 1e-6),
        crop(grey),
    )


# --- Copies --------------------------------------------------------------------------------------


def find_copies(looks: list[Look], names: list[str], given: list[str]) -> list[Copies]:
    """Every pair that shows the same, the earlier one first; a given training picture before all.

    Exact pairs tie each picture to the first of its kind, in its own part and across parts.
    """
    order = sorted(range(len(names)), key=lambda index: (given[index] == "test", index))
    pixels = [each.pixels for each in looks]
    hashes = np.packbits([each.bits for each in looks], axis=1).view(np.uint64)[:, 0]
    small = np.stack([each.small for each in looks])
    found, first = [], {}
    for index in order:
        part = given[index]
        for other in {part, "train"} if part == "test" else {part}:
            if (earlier := first.get((pixels[index], other))) is not None:
                found.append(Copies(names[earlier], names[index], "exact", other != part))
        first.setdefault((pixels[index], part), index)
    for earlier, later in _near(hashes[order], small[order]):
        a, b = order[earlier], order[later]
        if pixels[a] != pixels[b]:
            across = {given[a], given[b]} == {"train", "test"}
            found.append(Copies(names[a], names[b], "near", across))
    return found


def _near(hashes: np.ndarray, small: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose hashes nearly agree and whose small versions correlate."""
    for index in range(len(hashes) - 1):
        later = index + 1 + np.flatnonzero(
            np.bitwise_count(hashes[index + 1 :] ^ hashes[index]) <= MOST_BITS
        )  # fmt: skip
        for other in later[small[later] @ small[index] >= LEAST_CORRELATION]:
            yield index, int(other)


def _connected(names: list[str], copies: list[Copies]) -> np.ndarray:
    """(n,) int: the same for all that copies join, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = {name: index for index, name in enumerate(names)}
    first = [place[copy.first] for copy in copies]
    second = [place[copy.second] for copy in copies]
    shape = (len(names), len(names))
    joined = coo_array((np.ones(len(first), bool), (first, second)), shape)
    return connected_components(joined, directed=False)[1].astype(int)


# --- The sample ----------------------------------------------------------------------------------


def sample(count: int = 100, copies: int = 20) -> Pictures:
    """Pictures of generated heads, and some of them again, the same or larger."""
    greys, labels, names = [], [], []
    for index in range(count):
        has_tumour = index % 2
        images, masks = phantom(np.random.default_rng([1, index]), 3, 64, 1 - has_tumour)
        place = int(masks.sum(axis=(1, 2)).argmax())
        greys.append(Image.fromarray(images[place, ..., 1]))
        labels.append(has_tumour)
        names.append(f"{'yes' if has_tumour else 'no'}/{index}.png")
    for index in range(copies):
        copy = greys[index]
        if index % 2:
            copy = copy.resize((80, 80), Image.Resampling.BILINEAR)
        greys.append(copy)
        labels.append(labels[index])
        names.append(names[index].replace(".png", " (1).png"))
    looks = [look(grey) for grey in greys]
    return collect(looks, np.array(labels), names, [""] * len(names))
