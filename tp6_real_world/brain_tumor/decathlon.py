"""Task01 of the Medical Segmentation Decathlon: gliomas in NIfTI volumes, in the official layout.

`Task01_BrainTumour/dataset.json` lists pairs of `imagesTr/<patient>.nii.gz`, (240, 240, 155, 4)
with FLAIR, T1, T1 with contrast medium and T2, and `labelsTr/<patient>.nii.gz`, (240, 240, 155) of
0 to 3. The whole tumour is every label above 0.

Whole volumes of 484 patients don't fit into an ordinary memory, and neighbouring slices, 1 mm
apart, say nearly the same: of each volume every fifth slice with a brain in it is kept.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 2022.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

import labkit
from labkit.files import DataError

nibabel = labkit.lazy("nibabel")

HANDOUT_SEED = 816
MODALITIES = (1, 0, 2)
"""T1, FLAIR, T1 with contrast medium: LGG's sequences in LGG's order."""
EVERY = 5
LEAST_BRAIN = 0.02
"""Share of a slice that must not be 0 for it to be kept."""

PatientArrays = tuple[str, np.ndarray, np.ndarray]


def read(
    root: Path, size: int, most: int | None = None
) -> tuple[dict[str, list[PatientArrays]], str]:
    """Name, slices (d, size, size, 3) and masks of the patients of each part, and a SHA-256.

    The digest is that of `dataset.json` and of every file's name and length: hashing 7 GB at each
    start would take a minute. `most` limits the patients of each part. Raises `DataError` naming
    the file that is missing or damaged.
    """
    pairs, digest = listed(root)
    for image, label in pairs.values():
        for path in (image, label):
            if not path.is_file():
                raise DataError(f"{path}: absent, though dataset.json lists it")
            digest.update(f"{path.name} {path.stat().st_size}".encode())
    return {
        part: [(name, *read_pair(*pairs[name], size)) for name in names[:most]]
        for part, names in handout_split(list(pairs)).items()
    }, digest.hexdigest()


def listed(root: Path) -> tuple[dict[str, tuple[Path, Path]], hashlib._Hash]:
    """Image and label of each patient that `dataset.json` lists for training, and a digest of it.

    Raises `DataError`.
    """
    path = root / "dataset.json"
    try:
        content = path.read_bytes()
        training = json.loads(content)["training"]
        pairs = {
            Path(pair["image"]).name.removesuffix(".gz").removesuffix(".nii"): (
                root / pair["image"],
                root / pair["label"],
            )
            for pair in training
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: absent or not the Decathlon's ({error!r})") from error
    return pairs, hashlib.sha256(content)


def handout_split(patients: list[str]) -> dict[str, list[str]]:
    """The hand-out's: patients shuffled with seed 816, 85 % train, the rest in halves.

    It names neither the generator nor the order before: here Python's, from the names' order. The
    shares are of patients, never of slices. Raises `DataError` for too few of them.
    """
    shuffled = sorted(patients)
    random.Random(HANDOUT_SEED).shuffle(shuffled)
    first = int(0.85 * len(shuffled))
    second = first + (len(shuffled) - first) // 2
    parts = {
        "train": shuffled[:first],
        "validation": shuffled[first:second],
        "test": shuffled[second:],
    }
    if not all(parts.values()):
        raise DataError(f"{len(patients)} patients are too few for three parts")
    return parts


def read_pair(image: Path, label: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Slices (d, size, size, 3) float16 and masks (d, size, size) bool. Raises `DataError`.

    Half the memory of float32, and one part in 2,000 is finer than the scanner's noise.
    """
    volume, labels = read_volume(image), read_volume(label)
    if volume.ndim != 4 or volume.shape[3] <= max(MODALITIES):
        raise DataError(f"{image}: shape {volume.shape}, not (h, w, d, 4)")
    if labels.shape != volume.shape[:3]:
        raise DataError(f"{label}: shape {labels.shape}, its image's {volume.shape[:3]}")
    with_brain = np.flatnonzero((volume[..., 0] != 0).mean(axis=(0, 1)) >= LEAST_BRAIN)
    chosen = with_brain[len(with_brain) % EVERY // 2 :: EVERY]
    if not len(chosen):
        raise DataError(f"{image}: no slice with a brain")
    slices = [
        np.stack([shrunk(volume[:, :, place, each], size) for each in MODALITIES], axis=-1)
        for place in chosen
    ]
    masks = [shrunk(labels[:, :, place] > 0, size) > 0.5 for place in chosen]
    largest = np.finfo(np.float16).max
    kept = np.clip(np.stack(slices), -largest, largest).astype(np.float16)
    return kept, np.stack(masks)


def read_volume(path: Path) -> np.ndarray:
    """A NIfTI file's voxels, (h, w, d) or (h, w, d, channels), float32. Raises `DataError`.

    Turned so that a slice is seen as radiologists do, the forehead on top.
    """
    try:
        loaded = nibabel.as_closest_canonical(nibabel.load(path))
        voxels = np.asarray(loaded.dataobj, np.float32)
    except Exception as error:  # nibabel, gzip and NumPy raise many kinds
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    if voxels.ndim not in (3, 4):
        raise DataError(f"{path}: shape {voxels.shape}, not that of a volume")
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: holds values that are not numbers")
    return np.flip(np.swapaxes(voxels, 0, 1), axis=0)


def write_mask(masks: np.ndarray, like: Path, path: Path) -> None:
    """Masks (d, h, w) bool of the volume in `like`, in that file's own axes and space, as NIfTI."""
    source = nibabel.load(like)
    canonical = nibabel.as_closest_canonical(source)
    voxels = np.swapaxes(np.flip(np.moveaxis(masks, 0, 2), axis=0), 0, 1).astype(np.uint8)
    back = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(canonical.affine),
        nibabel.orientations.io_orientation(source.affine),
    )
    voxels = nibabel.orientations.apply_orientation(voxels, back)
    nibabel.save(nibabel.Nifti1Image(voxels, source.affine), path)


def shrunk(plane: np.ndarray, size: int) -> np.ndarray:
    """A slice (h, w) padded to a square and averaged, or enlarged, to (size, size) float32."""
    side = max(plane.shape)
    square = np.zeros((side, side), np.float32)
    top, left = ((side - length) // 2 for length in plane.shape)
    square[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    resampling = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(square).resize((size, size), resampling))
