"""MedMNIST3D's Organ and Nodule sets, read from the official files.

J. Yang et al., "MedMNIST v2" (Scientific Data 10:41, 2023). Put `organmnist3d.npz` or
`nodulemnist3d.npz`, or the `_64` files of 64^3 voxels, into the folder that LABKIT_DATA names.
Nothing is downloaded for you.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import labkit
from labkit.datasets import Part
from labkit.files import UNREADABLE, DataError, Origin, obtain, verify
from tp4_unet_conv3d.volumes import Volumes


@dataclass(frozen=True)
class Layout:
    """What an official file of a set holds."""

    classes: tuple[str, ...]
    counts: dict[str, int]
    """Volumes of each part, under the names that the file uses."""
    md5: dict[int, str]
    """Published MD5 of the file, for each edge length in voxels (medmnist 3.0.2)."""


LAYOUTS = {
    "organ": Layout(
        classes=(
            "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder",
            "heart", "lung-right", "lung-left", "spleen", "pancreas",
        ),
        counts={"train": 971, "val": 161, "test": 610},
        md5={28: "a0c5a1ff56af4f155c46d46fbb45a2fe", 64: "58a2205adf14a9d0a189cb06dc78bf10"},
    ),
    "nodule": Layout(
        classes=("benign", "malignant"),
        counts={"train": 1158, "val": 165, "test": 310},
        md5={28: "8755a7e9e05a4d9ce80a24c3e7a256f3", 64: "c47c5b7d457bf6332200d2ea6d64ecd8"},
    ),
}  # fmt: skip
ORIGINS = {
    task: Origin(
        name=f"{task.capitalize()}MNIST3D",
        credit="J. Yang et al., MedMNIST v2",
        licence="CC BY 4.0",
        files=(f"{task}mnist3d.npz", f"{task}mnist3d_64.npz"),
        page="https://zenodo.org/records/10519652",
        digest=f"md5:{layout.md5[28]}",
        sample="generated ellipsoids of 28^3 voxels, 50 of each class",
    )
    for task, layout in LAYOUTS.items()
}


def load_medmnist3d(task: str, choice: labkit.DataChoice = "auto", file: str = "") -> Volumes:
    """The set of `task`, organ or nodule, in its official parts.

    `file` is an official `.npz` file; without it, those of `ORIGINS` are looked for. A file that is
    given, and `real`, leave with exit code 2 when there is nothing to read; `auto` then warns and
    gives the sample: see `sample_parts`.
    """
    layout = LAYOUTS[task]
    parts, source = obtain(
        ORIGINS[task],
        choice,
        partial(read_parts, layout=layout),
        partial(sample_parts, len(layout.classes)),
        Path(file).expanduser() if file else None,
    )
    return Volumes(source, *parts, layout.classes)


def read_parts(path: Path, layout: Layout) -> tuple[list[Part], str]:
    """Training, validation and test part of an official file, and its SHA-256.

    Keys `{train,val,test}_images`, (n, edge, edge, edge) uint8, and `{train,val,test}_labels`,
    (n, 1) uint8. Raises `labkit.DataError` for an absent, truncated, changed or foreign file,
    naming it and what is wrong: shapes, labels and published MD5 are checked.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {
                f"{part}_{kind}": archive[f"{part}_{kind}"]
                for part in layout.counts
                for kind in ("images", "labels")
            }
    except FileNotFoundError as error:
        raise DataError(f"{path}: absent") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    edge = (0, *arrays["train_images"].shape)[-1]
    for part, count in layout.counts.items():
        expected = {"images": (count, edge, edge, edge), "labels": (count, 1)}
        for kind, shape in expected.items():
            found = arrays[f"{part}_{kind}"]
            if edge not in layout.md5 or found.shape != shape or found.dtype != np.uint8:
                raise DataError(
                    f"{path}: {part}_{kind} is {found.dtype} {found.shape}, expected uint8 {shape} "
                    f"with edges of {' or '.join(map(str, layout.md5))}"
                )
        if arrays[f"{part}_labels"].max() >= len(layout.classes):
            raise DataError(f"{path}: {part}_labels has labels above the last class")
    sha256 = verify(path, f"md5:{layout.md5[edge]}")
    return [Part(arrays[f"{p}_images"], arrays[f"{p}_labels"][:, 0]) for p in layout.counts], sha256


def sample_parts(classes: int) -> list[Part]:
    """Generated stand-ins of 28^3 voxels: one ellipsoid each, its axes are those of its class.

    30 volumes of each class for training, 10 for validation and 10 for test; size, place and noise
    are random, seed 0.
    """
    rng = np.random.default_rng(0)
    axes = rng.uniform(4, 11, (classes, 3))
    grid = np.stack(np.meshgrid(*[np.arange(28) - 13.5] * 3, indexing="ij"), axis=-1)
    parts = []
    for count in (30, 10, 10):
        labels = rng.permutation(np.repeat(np.arange(classes, dtype=np.uint8), count))
        volumes = np.empty((len(labels), 28, 28, 28), np.uint8)
        for volume, label in zip(volumes, labels, strict=True):
            scaled = (grid - rng.uniform(-2, 2, 3)) / (axes[label] * rng.uniform(0.9, 1.1))
            inside = (scaled**2).sum(axis=-1) < 1
            grey = np.where(inside, rng.uniform(120, 160), 80) + rng.normal(0, 20, inside.shape)
            volume[:] = np.clip(grey, 0, 255)
        parts.append(Part(volumes, labels))
    return parts
