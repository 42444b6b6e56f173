"""MedMNIST3D's Organ and Nodule sets, read from the official files.

J. Yang et al., "MedMNIST v2" (Scientific Data 10:41, 2023), CC BY 4.0. The files stand at
https://zenodo.org/records/10519652: put `organmnist3d.npz` or `nodulemnist3d.npz`, or the `_64`
files of 64^3 voxels, into the folder that LABKIT_DATA names. Nothing is downloaded for you.
"""

import hashlib
import io
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import labkit
from labkit.arguments import fail
from tp4_unet_conv3d.volumes import Volumes

PAGE = "https://zenodo.org/records/10519652"


@dataclass(frozen=True)
class Origin:
    """What is known of one official set."""

    classes: tuple[str, ...]
    counts: dict[str, int]
    """Volumes of each part, under the names that the file uses."""
    md5: dict[int, str]
    """Published MD5 of the file, for each edge length in voxels (medmnist 3.0.2)."""


ORIGINS = {
    "organ": Origin(
        classes=(
            "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder",
            "heart", "lung-right", "lung-left", "spleen", "pancreas",
        ),
        counts={"train": 971, "val": 161, "test": 610},
        md5={28: "a0c5a1ff56af4f155c46d46fbb45a2fe", 64: "58a2205adf14a9d0a189cb06dc78bf10"},
    ),
    "nodule": Origin(
        classes=("benign", "malignant"),
        counts={"train": 1158, "val": 165, "test": 310},
        md5={28: "8755a7e9e05a4d9ce80a24c3e7a256f3", 64: "c47c5b7d457bf6332200d2ea6d64ecd8"},
    ),
}  # fmt: skip


def load_medmnist3d(task: str, choice: labkit.DataChoice = "auto", file: str = "") -> Volumes:
    """The set of `task`, organ or nodule, in its official parts.

    `file` is an official `.npz` file; without it, `<task>mnist3d.npz` is looked for in
    `$LABKIT_DATA`. A file that is given, and `real`, leave with exit code 2 when there is nothing
    to read; `auto` then warns and gives the sample: see `sample_volumes`.
    """
    origin = ORIGINS[task]
    if choice == "sample":
        return sample_volumes(origin.classes)
    folder = os.environ.get("LABKIT_DATA")
    if file:
        path = Path(file).expanduser()
    elif folder:
        path = Path(folder).expanduser() / f"{task}mnist3d.npz"
    else:
        path = None
    try:
        if path is None:
            raise labkit.DataError("LABKIT_DATA: not set")
        return read_medmnist3d(path, origin)
    except labkit.DataError as error:
        reason = str(error)
    advice = f"Put {task}mnist3d.npz from {PAGE} into a folder and set LABKIT_DATA to that folder."
    if choice == "real" or file:
        fail(f"{task.capitalize()}MNIST3D can't be had: {reason}\n{advice}")
    print(
        f"warning: {task.capitalize()}MNIST3D can't be had ({reason}), so this run uses a sample: "
        f"generated ellipsoids.\nIts figures are not MedMNIST figures. {advice}",
        file=sys.stderr,
    )
    return sample_volumes(origin.classes)


def read_medmnist3d(path: Path, origin: Origin) -> Volumes:
    """The volumes of an official file, checked by shape, labels and published MD5.

    Keys `{train,val,test}_images`, (n, edge, edge, edge) uint8, and `{train,val,test}_labels`,
    (n, 1) uint8. Raises `labkit.DataError` for an absent, truncated, changed or foreign file,
    naming it and what is wrong.
    """
    arrays = {}
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for part in origin.counts:
                for kind in ("images", "labels"):
                    arrays[f"{part}_{kind}"] = archive[f"{part}_{kind}"]
    except FileNotFoundError as error:
        raise labkit.DataError(f"{path}: absent") from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise labkit.DataError(f"{path}: truncated or unreadable ({error})") from error
    edge = (0, *arrays["train_images"].shape)[-1]
    for part, count in origin.counts.items():
        for name, shape in (
            (f"{part}_images", (count, edge, edge, edge)),
            (f"{part}_labels", (count, 1)),
        ):
            found = arrays[name]
            if edge not in origin.md5 or found.shape != shape or found.dtype != np.uint8:
                raise labkit.DataError(
                    f"{path}: {name} is {found.dtype} {found.shape}, expected uint8 {shape} "
                    f"with edges of {' or '.join(map(str, origin.md5))}"
                )
        if arrays[f"{part}_labels"].max() >= len(origin.classes):
            raise labkit.DataError(f"{path}: {part}_labels has labels above the last class")
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 != origin.md5[edge]:
        raise labkit.DataError(
            f"{path}: MD5 is {found_md5}, the official file's is {origin.md5[edge]}"
        )
    return Volumes(
        f"real:{hashlib.sha256(content).hexdigest()[:8]}",
        origin.classes,
        arrays["train_images"], arrays["train_labels"][:, 0],
        arrays["val_images"], arrays["val_labels"][:, 0],
        arrays["test_images"], arrays["test_labels"][:, 0],
    )  # fmt: skip


def sample_volumes(classes: tuple[str, ...]) -> Volumes:
    """Generated stand-ins of 28^3 voxels: one ellipsoid each, its axes are those of its class.

    30 volumes a class for training, 10 for validation and 10 for test; size, place and noise are
    random, seed 0.
    """
    rng = np.random.default_rng(0)
    axes = rng.uniform(4, 11, (len(classes), 3))
    grid = np.stack(np.meshgrid(*[np.arange(28) - 13.5] * 3, indexing="ij"), axis=-1)
    parts = []
    for each in (30, 10, 10):
        labels = rng.permutation(np.repeat(np.arange(len(classes), dtype=np.uint8), each))
        volumes = np.empty((len(labels), 28, 28, 28), np.uint8)
        for volume, label in zip(volumes, labels, strict=True):
            scaled = (grid - rng.uniform(-2, 2, 3)) / (axes[label] * rng.uniform(0.9, 1.1))
            inside = (scaled**2).sum(axis=-1) < 1
            grey = np.where(inside, rng.uniform(120, 160), 80) + rng.normal(0, 20, inside.shape)
            volume[:] = np.clip(grey, 0, 255)
        parts += [volumes, labels]
    return Volumes("sample", classes, *parts)
