"""Slices of brain MRI with the masks of their tumours, split by patient before anything else.

`lgg` are 110 patients with low-grade gliomas, found and split by `labkit.lgg`: the same patients as
TP4's are in the same parts. `decathlon` is Task01 of the Medical Segmentation Decathlon, see
`decathlon.py`. Without either, `--data auto` generates phantoms, see `phantoms.py`.

Both have three sequences in the same order: T1 before contrast medium, FLAIR, T1 after it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

import labkit
from labkit import lgg
from labkit.files import DataError, Origin, entries, obtain
from tp6_real_world.brain_tumor import decathlon
from tp6_real_world.brain_tumor.phantoms import phantom_patients

SEQUENCES = ("T1", "FLAIR", "T1 with contrast")
FLAIR = 1
"""Its channel; gliomas and their oedema are brightest there."""
SMOKE_SIZE = 32
SPLIT_SEED = 0
"""Of `--split slice`, the wrong split, which is there to show what it hides."""
Split = Literal["patient", "slice"]
Dataset = Literal["lgg", "decathlon"]

ORIGINS = {
    "decathlon": Origin(
        name="Decathlon Task01 (BraTS)",
        credit="M. Antonelli et al., Nature Communications 2022; BraTS 2016 and 2017",
        licence="CC BY-SA 4.0",
        files=("Task01_BrainTumour",),
        page="http://medicaldecathlon.com",
        sample="",
    ),
}
"""LGG is declared in `labkit.lgg`, the pictures in `pictures.py`."""


@dataclass(frozen=True)
class Patient:
    """One patient's slices, from bottom to top."""

    name: str
    images: np.ndarray
    """(d, size, size, 3): T1, FLAIR, T1 with contrast medium, as they were stored."""
    masks: np.ndarray
    """(d, size, size) bool: the whole tumour."""


@dataclass(frozen=True)
class Slices(labkit.Part):
    """Slices `x` (n, size, size, 3), not normalised yet, and masks `y` (n, size, size) bool."""

    groups: np.ndarray
    """(n,) int: the patient's number, the same in all parts; a patient's slices are in a row."""
    names: np.ndarray
    """(n,) str: the patient's name."""

    @property
    def has_tumour(self) -> np.ndarray:
        """(n,) bool: whether any pixel of the slice is tumour."""
        return self.y.any(axis=(1, 2))

    @property
    def targets(self) -> np.ndarray:
        """(n, size, size, 1) float32: the masks, as the network is to give them."""
        return self.y[..., None].astype(np.float32)


def load(
    choice: labkit.DataChoice = "auto",
    smoke: bool = False,
    dataset: Dataset = "lgg",
    size: int = 128,
    split: Split = "patient",
) -> labkit.Data:
    """Slices in three parts, no patient in two of them, unless `split` is `slice`.

    `size` is the side of the slices, pixels. Leaves with exit code 2 where `choice` is `real` and
    the set is not there or is damaged.
    """
    size = SMOKE_SIZE if smoke else size
    most = 2 if smoke else None
    sample = partial(phantom_parts, size, smoke)
    if dataset == "lgg":
        origin = lgg.ORIGINS["slices"]
        read = partial(read_lgg, size=size, most=most)
    else:
        origin = ORIGINS["decathlon"]
        read = partial(read_decathlon, size=size, most=most)
    parts, source = obtain(origin, choice, read, sample)
    number = {patient.name: index for index, patient in enumerate(chain(*parts.values()))}
    slices = {name: _joined(patients, number) for name, patients in parts.items()}
    if split == "slice":
        slices = _mixed(slices)
    return labkit.Data(source, slices["train"], slices["validation"], slices["test"])


def _joined(patients: list[Patient], number: dict[str, int]) -> Slices:
    counts = [len(patient.images) for patient in patients]
    return Slices(
        np.concatenate([patient.images for patient in patients]),
        np.concatenate([patient.masks for patient in patients]),
        np.repeat([number[patient.name] for patient in patients], counts),
        np.repeat([patient.name for patient in patients], counts),
    )


def _mixed(parts: dict[str, Slices]) -> dict[str, Slices]:
    """The same slices in parts of the same sizes, without regard to whose they are."""
    whole = [np.concatenate(arrays) for arrays in zip(*map(_arrays, parts.values()), strict=True)]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(whole[0]))
    stops = np.cumsum([len(part) for part in parts.values()])[:-1]
    return {
        name: Slices(*(array[np.sort(chosen)] for array in whole))
        for name, chosen in zip(parts, np.split(order, stops), strict=True)
    }


def _arrays(part: Slices) -> tuple[np.ndarray, ...]:
    return part.x, part.y, part.groups, part.names


def phantom_parts(size: int, smoke: bool) -> dict[str, list[Patient]]:
    """Generated patients: 24, 8 and 8, in a smoke run 6, 3 and 3; seed 0."""
    counts = (6, 3, 3) if smoke else (24, 8, 8)
    slices = 6 if smoke else 10
    patients = [
        Patient(f"phantom_{index:02}", *found)
        for index, found in enumerate(phantom_patients(sum(counts), slices, size))
    ]
    first, second = counts[0], counts[0] + counts[1]
    return {
        "train": patients[:first],
        "validation": patients[first:second],
        "test": patients[second:],
    }


# --- LGG -----------------------------------------------------------------------------------------


def read_lgg(
    root: Path, size: int, most: int | None = None
) -> tuple[dict[str, list[Patient]], str]:
    """The patients of each part below `root` and the SHA-256 of all files that were read.

    `most` limits the patients of each part. Raises `DataError` naming what is damaged or missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no folder")
    folders = {path.name: path for path in entries(root) if path.is_dir()}
    if not folders:
        raise DataError(f"{root}: no patients' folders")
    digest = hashlib.sha256()
    return {
        part: [read_lgg_patient(folders[name], size, digest) for name in names[:most]]
        for part, names in lgg.split(root, sorted(folders)).items()
    }, digest.hexdigest()


def read_lgg_patient(folder: Path, size: int, digest: Any) -> Patient:
    """The slices of `folder` in their order, each averaged down to `size` pixels.

    What is not 0 in a mask is tumour. `digest` sees the bytes of all files. Raises `DataError`.
    """
    found = {path.stem: path for path in entries(folder) if path.suffix.lower() in lgg.ENDINGS}
    masks = {stem for stem in found if stem.endswith("_mask")}
    slices = sorted(set(found) - masks, key=lgg.slice_number)
    if not slices:
        raise DataError(f"{folder}: no slices")
    if lonely := {f"{stem}_mask" for stem in slices} ^ masks:
        raise DataError(f"{folder}: {min(lonely)} or its slice is missing")
    images, truth = [], []
    for stem in slices:
        image = lgg.read_image(found[stem], "RGB", digest)
        mask = lgg.read_image(path := found[f"{stem}_mask"], "L", digest)
        if mask.size != image.size:
            raise DataError(f"{path}: {mask.size} pixels, its slice {image.size}")
        least = 127 if path.suffix.lower() == ".jpg" else 0  # JPEG blurs edges
        mask = mask.point(lambda value, least=least: 255 * (value > least))
        images.append(np.asarray(image.resize((size, size), Image.Resampling.BOX)))
        truth.append(np.asarray(mask.resize((size, size), Image.Resampling.BOX)) > 127)
    return Patient(folder.name, np.stack(images), np.stack(truth))


# --- Decathlon -----------------------------------------------------------------------------------


def read_decathlon(
    root: Path, size: int, most: int | None = None
) -> tuple[dict[str, list[Patient]], str]:
    """The same for `Task01_BrainTumour`, split as the hand-out says. Raises `DataError`."""
    found, digest = decathlon.read(root, size, most)
    return {
        part: [Patient(*patient) for patient in patients] for part, patients in found.items()
    }, digest
