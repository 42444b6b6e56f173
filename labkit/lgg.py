"""LGG: brain MRI slices of 110 patients with the masks of their gliomas, split by patient.

Buda, Saha and Mazurowski, "Association of genomic subtypes of lower-grade gliomas with shape
features automatically extracted by a deep learning algorithm", Computers in Biology and Medicine
2019; images from The Cancer Imaging Archive (TCGA-LGG). It can't be downloaded without an
account: unpack Kaggle's `mateuszbuda/lgg-mri-segmentation` below `$LABKIT_DATA`.

The layout is `kaggle_3m/<patient>/<patient>_<slice>.tif` and `..._<slice>_mask.tif`, 256x256, with
the channels pre-contrast, FLAIR, post-contrast; `.jpg` and `.png` are read too. An optional
`kaggle_3m/split.csv` with the columns `patient` and `split` (train, val, test) fixes the parts;
otherwise the order of the patients' SHA-256 does, 70 %, 15 % and 15 %.

Whole volumes are read from `lgg_volumes_flair96.npz`: for each patient `<patient>/flair` (d, 96,
96) uint8 and `<patient>/mask` (d, 96, 12) uint8, eight pixels to a byte, and the patients' names in
`train_patients` and `test_patients`.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from labkit.files import UNREADABLE, DataError, Origin, entries, obtain, read_text

SIZE = 128
FLAIR = 1
"""Its channel; gliomas are brightest there."""
SLICES = 32
"""To which all volumes are resampled; they have 24 to 60."""
ENDINGS = (".tif", ".png", ".jpg")
PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
CREDIT = "M. Buda, A. Saha, M. A. Mazurowski; The Cancer Imaging Archive, TCGA-LGG"
PAGE = "https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation"
ORIGINS = {
    "slices": Origin(
        name="LGG segmentation",
        credit=CREDIT,
        licence="CC BY-NC-SA 4.0",
        files=(
            "kaggle_3m", "lgg-mri-segmentation/kaggle_3m", "lgg_mri_segmentation/kaggle_3m",
        ),
        page=PAGE,
        sample="",
    ),
    "volumes": Origin(
        name="LGG volumes",
        credit=CREDIT,
        licence="CC BY-NC-SA 4.0",
        files=("lgg_volumes_flair96.npz",),
        page=PAGE,
        sample="",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Slices:
    """Slices of one part, a patient's in a row. Usage: `load_slices()[0]["train"].images`."""

    images: np.ndarray
    """(n, 128, 128, 1) float32, FLAIR: 0 is the mean of the patient's brain, 1 its deviation."""
    masks: np.ndarray
    """(n, 128, 128) bool."""
    patients: np.ndarray
    """(n,) names."""


def load_slices(most: int | None = None, count: int | None = None) -> tuple[dict[str, Slices], str]:
    """The parts train, validation and test, and the source. Usage: `parts, source = load_slices()`.

    `most` limits the patients of each part, `count` is how many slices the set must have. Leaves
    with exit code 2, naming what was tried, when the set is not there, is another or is damaged.
    """
    return obtain(ORIGINS["slices"], "real", partial(read_slices, most=most, count=count))


def read_slices(
    root: Path, most: int | None = None, count: int | None = None
) -> tuple[dict[str, Slices], str]:
    """The parts below `root` and the SHA-256 of all files. Usage: `read_slices(Path("kaggle_3m"))`.

    Raises `DataError` naming the file that is damaged or missing, or how many slices there are.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no folder")
    found = {path.name: path for path in entries(root) if path.is_dir()}
    if not found:
        raise DataError(f"{root}: no patients' folders")
    slices = sum(path.stem.endswith("_mask") for each in found.values() for path in entries(each))
    if count not in (None, slices):
        raise DataError(f"{root}: another selection, of {slices:,} slices and not {count:,}")
    parts: dict[str, Slices] = {}
    digest = hashlib.sha256()
    for part, patients in split(root, sorted(found)).items():
        patients = patients[:most]
        series = [read_patient(found[patient], digest) for patient in patients]
        images, masks = (np.concatenate(arrays) for arrays in zip(*series, strict=True))
        names = np.repeat(patients, [len(slices) for slices, _ in series])
        parts[part] = Slices(images, masks, names)
    return parts, digest.hexdigest()


Volumes = dict[str, tuple[np.ndarray, np.ndarray]]


def load_volumes(most: int | None = None) -> tuple[Volumes, str]:
    """Whole volumes and their masks by part, and the source. Usage: `load_volumes()[0]["test"]`.

    Volumes (n, 32, 96, 96, 1) float32, normalised as slices are, and masks (n, 32, 96, 96) bool.
    The last quarter of the training patients, in the order of their names, validates. `most` limits
    the patients of each part. Leaves with exit code 2, naming what was tried, when the file is not
    there or is damaged.
    """
    return obtain(ORIGINS["volumes"], "real", partial(read_volumes, most=most))


def read_volumes(path: Path, most: int | None = None) -> tuple[Volumes, str]:
    """The parts in the file `path` and its SHA-256. Usage: `read_volumes(Path("volumes.npz"))`.

    Raises `DataError` for a damaged file, or one of another layout.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            training, test = sorted(file["train_patients"]), sorted(file["test_patients"])
            held_out = max(1, len(training) // 4)
            names = {
                "train": training[:-held_out],
                "validation": training[-held_out:],
                "test": test,
            }
            if set(training) & set(test):
                raise ValueError("a patient is in two parts")
            if not all(names.values()):
                raise ValueError(f"{len(training)} and {len(test)} patients are too few")
            pairs = {
                part: [
                    resample(
                        file[f"{name}/flair"],
                        np.unpackbits(file[f"{name}/mask"], axis=-1).astype(bool),
                    )
                    for name in patients[:most]
                ]
                for part, patients in names.items()
            }
        return {
            part: tuple(np.stack(arrays) for arrays in zip(*found, strict=True))
            for part, found in pairs.items()
        }, digest
    except UNREADABLE as error:
        raise DataError(f"{path}: damaged or of another layout ({error})") from error


def resample(volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`SLICES` slices at equal distances: linear between slices, and the nearest one's mask.

    Usage: `volume, mask = resample(volume, mask)`.

    (d, h, w) uint8 and bool to (32, h, w, 1) float32, normalised, and (32, h, w) bool. Raises
    `ValueError` where the shapes differ.
    """
    if volume.shape != mask.shape:
        raise ValueError(f"a volume of {volume.shape} has a mask of {mask.shape}")
    places = np.linspace(0, len(volume) - 1, SLICES)
    below = np.minimum(places.astype(int), len(volume) - 2)
    share = (places - below)[:, None, None]
    values = (1 - share) * volume[below] + share * volume[below + 1]
    return normalise(values)[..., None], mask[np.rint(places).astype(int)]


def split(root: Path, patients: list[str]) -> dict[str, list[str]]:
    """Patients of each part, each in one part only; from `split.csv` or their names' SHA-256.

    Usage: `split(Path("kaggle_3m"), names)["test"]`.

    Raises `DataError` for a patient who is in two parts, or in none, and for a malformed file.
    """
    parts: dict[str, list[str]] = {part: [] for part in ("train", "validation", "test")}
    path = root / "split.csv"
    if path.exists():
        try:
            table = csv.DictReader(read_text(path).splitlines())
            rows = [(row.get("patient"), row.get("split")) for row in table]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: unreadable ({error})") from error
        for number, row in enumerate(rows, start=2):
            if row[1] not in PARTS:
                raise DataError(
                    f"{path}, line {number}: patient {row[0]}, split {row[1]}; the columns "
                    "patient and split are needed, and a split is train, val or test"
                )
        pairs = {(patient, PARTS[part]) for patient, part in rows}
        placed = dict(pairs)
        if len(placed) < len(pairs):
            raise DataError(f"{path}: a patient is in two parts")
        for patient in patients:
            if patient not in placed:
                raise DataError(f"{path}: {patient} is in no part")
            parts[placed[patient]].append(patient)
    else:
        shuffled = sorted(patients, key=lambda name: hashlib.sha256(name.encode()).digest())
        held_out = max(1, round(0.15 * len(patients)))
        parts["test"] = sorted(shuffled[:held_out])
        parts["validation"] = sorted(shuffled[held_out : 2 * held_out])
        parts["train"] = sorted(shuffled[2 * held_out :])
    if not all(parts.values()):
        raise DataError(f"{root}: {len(patients)} patients are too few for three parts")
    return parts


def read_patient(folder: Path, digest: Any) -> tuple[np.ndarray, np.ndarray]:
    """FLAIR of all slices of `folder` in their order, normalised, and their masks.

    Usage: `images, masks = read_patient(folder, hashlib.sha256())`.

    What is not 0 in a mask is tumour. `digest` sees the bytes of all files. Raises `DataError`
    naming a file that has no partner, another shape than that, or can't be read.
    """
    found = {path.stem: path for path in entries(folder) if path.suffix.lower() in ENDINGS}
    slices = sorted((stem for stem in found if not stem.endswith("_mask")), key=slice_number)
    for stem in (name for name in found if name.endswith("_mask")):
        if stem.removesuffix("_mask") not in slices:
            raise DataError(f"{found[stem]}: there is no slice {stem[:-5]} beside it")
    if not slices:
        raise DataError(f"{folder}: no slices")
    images, masks = [], []
    for stem in slices:
        if f"{stem}_mask" not in found:
            raise DataError(f"{found[stem]}: there is no {stem}_mask beside it")
        image, mask = (
            read_image(found[stem], "RGB", digest),
            read_image(found[f"{stem}_mask"], "L", digest),
        )
        if mask.size != image.size:
            raise DataError(f"{found[f'{stem}_mask']}: {mask.size} pixels, its slice {image.size}")
        least = 127 if found[f"{stem}_mask"].suffix.lower() == ".jpg" else 0  # JPEG blurs edges
        mask = mask.point(lambda value, least=least: 255 * (value > least))
        small = [each.resize((SIZE, SIZE), Image.Resampling.BOX) for each in (image, mask)]
        images.append(np.asarray(small[0]))
        masks.append(np.asarray(small[1]) > 127)
    volume = np.stack(images)[..., FLAIR : FLAIR + 1]  # (slices, 128, 128, 1)
    return normalise(volume), np.stack(masks)


def normalise(volume: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 in a patient's brain: float32, within ±5.

    Usage: `normalise(volume)`.

    The brain are pixels above a tenth of the 99th percentile. No mask is used.
    """
    volume = volume.astype(np.float32)
    brain = volume[volume > 0.1 * np.percentile(volume, 99)]
    mean, deviation = (brain.mean(), brain.std()) if brain.size else (0.0, 1.0)
    return np.clip((volume - mean) / max(deviation, 1e-3), -5, 5)


def slice_number(stem: str) -> int:
    """12 of `<patient>_12`; `DataError` without it. Usage: `sorted(stems, key=slice_number)`."""
    number = stem.rpartition("_")[-1]
    if not number.isdecimal():
        raise DataError(f"{stem}: not named <patient>_<slice>")
    return int(number)


def read_image(path: Path, mode: str, digest: Any) -> Image.Image:
    """A square image, its bytes added to `digest`. Usage: `read_image(path, "RGB", sha256)`.

    Raises `DataError` naming one that is damaged, or not square.
    """
    try:
        digest.update(path.read_bytes())
        with Image.open(path) as image:
            read = image.convert(mode)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    if read.width != read.height:
        raise DataError(f"{path}: {read.width}x{read.height} pixels; slices are square")
    return read
