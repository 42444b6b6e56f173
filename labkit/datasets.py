"""Data sets that several labs share, and the form in which every lab hands its data on.

Real and verified (`labkit.files`), or a built-in sample that says so.
"""

from __future__ import annotations

import codecs
import hashlib
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from labkit.arguments import DataChoice
from labkit.files import UNREADABLE, DataError, Origin, obtain

ORIGINS = {
    "mnist": Origin(
        name="MNIST",
        credit="Y. LeCun, C. Cortes, C. J. C. Burges",
        licence="CC BY-SA 3.0",
        files=("mnist.npz",),
        page="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        digest="sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
        content_sha256="06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
        sample="scikit-learn's 1,797 scanned 8x8 digits, enlarged (UCI, CC BY 4.0)",
    ),
    "cifar10": Origin(
        name="CIFAR-10",
        credit="A. Krizhevsky, V. Nair, G. Hinton",
        licence="none stated",
        files=(
            "cifar-10-python.tar.gz",
            "cifar10.npz",
            "cifar-10-batches-py",
            "cifar-10-batches-py-target/cifar-10-batches-py",  # as keras.datasets leaves it
        ),
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        digest="sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        content_sha256="80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
        sample="1,200 generated images of ten coloured patterns",
    ),
}
SHAPES = {  # of the arrays, in hashing order; all are uint8
    "mnist": {
        "x_train": (60000, 28, 28), "y_train": (60000,),
        "x_test": (10000, 28, 28), "y_test": (10000,),
    },
    "cifar10": {
        "x_train": (50000, 32, 32, 3), "y_train": (50000,),
        "x_test": (10000, 32, 32, 3), "y_test": (10000,),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Inputs and their truth, one row per example; a lab may add fields. Usage: `data.train.x`."""

    x: np.ndarray
    """(n, ...) what the network is given, before scaling."""
    y: np.ndarray
    """(n, ...) what it should find: labels, masks, values to come."""

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.x)


@dataclass(frozen=True)
class Data:
    """What a lab's `load()` returns: three parts, split before anything else is done to them.

    Usage: `data = load(config.data, config.smoke)`, then `data.train.x`, `data.source`.
    """

    source: str
    """`real:<first 8 of the content's SHA-256>`, `sample` or `simulated:<what>`."""
    train: Part
    validation: Part
    test: Part | Any
    """A `comparison.SealedTest` inside a trial."""


@dataclass(frozen=True)
class Images:
    """A labelled image set with its fixed training and test parts. Usage: `load_mnist().x_test`."""

    source: str
    """`real:<first 8 of the content's SHA-256>` or `sample`; every run and figure carries it."""
    x_train: np.ndarray
    """(n, height, width) or (n, height, width, 3) uint8, 0 to 255."""
    y_train: np.ndarray
    """(n,) uint8 labels from 0."""
    x_test: np.ndarray
    y_test: np.ndarray

    def head(self, train: int, test: int) -> Images:
        """The first `train` and `test` images, for smoke runs. Usage: `data.head(512, 256)`."""
        return replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )

    def split(self, training: Any, validation: Any) -> Data:
        """Training images apart from validation images, by index or slice.

        Usage: `data = images.split(slice(0, 54000), slice(54000, None))`.
        """
        return Data(
            self.source,
            Part(self.x_train[training], self.y_train[training]),
            Part(self.x_train[validation], self.y_train[validation]),
            Part(self.x_test, self.y_test),
        )


def load_mnist(choice: DataChoice = "auto") -> Images:
    """MNIST: 60,000 + 10,000 digits, 28x28, white on black. Usage: `data = load_mnist("auto")`.

    `real` leaves with exit code 2 when the real set can't be had; `auto` then warns and gives the
    sample: 1,437 training and 360 test digits (scikit-learn's, enlarged to MNIST's form).
    """
    return _load("mnist", choice, _sample_digits)


def load_cifar10(choice: DataChoice = "auto") -> Images:
    """CIFAR-10: 50,000 + 10,000 colour images, 32x32. Usage: `data = load_cifar10("auto")`.

    Read from `cifar10.npz`, the official archive, or what Keras has unpacked. `real` leaves with
    exit code 2 when the real set can't be had; `auto` then warns and gives the sample: 1,000
    training and 200 test images of ten coloured patterns.
    """
    return _load("cifar10", choice, _sample_patterns)


def _load(name: str, choice: DataChoice, sample: Callable[[], dict[str, np.ndarray]]) -> Images:
    read = partial(read_verified, name=name)
    arrays, source = obtain(ORIGINS[name], choice, read, sample)
    return Images(source, **arrays)


def read_verified(path: Path, name: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of `path` and their SHA-256, checked. Usage: `read_verified(path, "mnist")`.

    `path` is an `.npz` file, or CIFAR-10's official archive or folder. Raises `DataError` for a
    truncated, tampered or foreign one, naming it.
    """
    digest, arrays, shapes = hashlib.sha256(), {}, SHAPES[name]
    expected = ORIGINS[name].content_sha256
    try:
        found = _read_npz(path, list(shapes)) if path.suffix == ".npz" else _read_batches(path)
        for key, shape in shapes.items():
            array = found[key]
            if array.shape == (*shape, 1):  # labels as Keras shapes them
                array = array[..., 0]
            if array.shape != shape:
                raise DataError(f"{path}: {key} has shape {array.shape}, expected {shape}")
            arrays[key] = np.ascontiguousarray(array, dtype=np.uint8)
            digest.update(arrays[key])
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path}: SHA-256 of the content is {digest.hexdigest()[:8]}..., "
            f"expected {expected[:8]}..."
        )
    return arrays, expected


def _read_npz(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


_ARRAY_PARTS = {  # what a pickled array is made of
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of numbers, texts and NumPy arrays, and refuses all else.

    CIFAR-10's official files are pickles, which could otherwise run any code.
    """

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ARRAY_PARTS[module, name]


def _read_batches(path: Path) -> dict[str, np.ndarray]:
    """CIFAR-10's six official batches, from their folder or their archive."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    if path.is_dir():
        batches = [_read_batch((path / name).open("rb")) for name in names]
    else:
        with tarfile.open(path) as archive:  # read in memory, nothing is unpacked
            files = [archive.extractfile(f"cifar-10-batches-py/{name}") for name in names]
            batches = [_read_batch(file) for file in files]
    images, labels = zip(*batches, strict=True)
    return {
        "x_train": np.concatenate(images[:5]),
        "y_train": np.concatenate(labels[:5]),
        "x_test": images[5],
        "y_test": labels[5],
    }


def _read_batch(file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
    with file:
        batch = _ArraysOnly(file, encoding="bytes").load()
    planes = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), np.asarray(batch[b"labels"], np.uint8)


def _sample_digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits in MNIST's form: 8x8 enlarged to 20x20, centred in 28x28, 0 to 255.

    The last 360 are the test part: the set is ordered by writer, so that a block at the end keeps
    most of its writers out of training.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    enlarged = zoom(digits.images / 16.0, (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    images = np.pad(np.rint(255 * enlarged), ((0, 0), (4, 4), (4, 4))).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    return {
        "x_train": images[:-360],
        "y_train": labels[:-360],
        "x_test": images[-360:],
        "y_test": labels[-360:],
    }


def _sample_patterns() -> dict[str, np.ndarray]:
    """1,200 images, 32x32: ten patterns in random colours, places and sizes on noisy backgrounds.

    The patterns, labels 0 to 9: disc, ring, square, frame, cross, triangle, horizontal stripes,
    vertical stripes, checks, dots. Seed 0; the last 200 are the test part.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32]
    labels = np.resize(np.arange(10), 1200)
    images = np.empty((1200, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        centre, radius, width = rng.uniform(12, 20, 2), rng.uniform(7, 11), rng.uniform(2, 3)
        down, right = y - centre[0], x - centre[1]
        far, near = np.maximum(abs(down), abs(right)), np.minimum(abs(down), abs(right))
        period = int(rng.integers(5, 9))
        ink = (
            np.hypot(down, right) < radius,
            abs(np.hypot(down, right) - radius) < width,
            far < radius,
            abs(far - radius) < width,
            (near < width) & (far < radius),
            (abs(right) < (down + radius) / 2) & (down < radius),
            (y + period) % period < period / 2,
            (x + period) % period < period / 2,
            ((y // period) + (x // period)) % 2 == 0,
            ((y % period) < period / 2) & ((x % period) < period / 2),
        )[label]
        background, colour = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        while abs(background - colour).sum() < 150:
            colour = rng.integers(0, 256, 3)
        noisy = np.where(ink[..., None], colour, background) + rng.normal(0, 20, (32, 32, 3))
        image[:] = np.clip(noisy, 0, 255)
    labels = labels.astype(np.uint8)
    return {
        "x_train": images[:1000],
        "y_train": labels[:1000],
        "x_test": images[1000:],
        "y_test": labels[1000:],
    }
