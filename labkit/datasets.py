"""Data sets by name: real and verified, or a built-in sample that says so.

A set is looked for in `$LABKIT_DATA` (a folder filled once by a user or a class), then in the
Keras cache, then downloaded. What is read is always checked against its SHA-256; a damaged file is
named and never used. With `auto`, and only then, a small built-in sample is the last resort.
"""

import hashlib
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from labkit.arguments import DataChoice, fail


class DataError(Exception):
    """A file is not the data set it should be; the message names it and says why."""


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from and how it is recognised. Usage: `ORIGINS["mnist"].licence`."""

    file: str
    """File name below `$LABKIT_DATA` and the Keras cache."""
    url: str
    url_sha256: str
    """SHA-256 of the file behind `url`."""
    content_sha256: str
    """SHA-256 of the arrays, one after the other: equal for every container of the same data."""
    shapes: dict[str, tuple[int, ...]]
    """Arrays in hashing order, with their shapes; all are uint8."""
    credit: str
    licence: str
    sample: str
    """What stands in when nothing else can be had."""


ORIGINS = {
    "mnist": Origin(
        file="mnist.npz",
        url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        url_sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
        content_sha256="06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
        shapes={
            "x_train": (60000, 28, 28),
            "y_train": (60000,),
            "x_test": (10000, 28, 28),
            "y_test": (10000,),
        },
        credit="Y. LeCun, C. Cortes, C. J. C. Burges",
        licence="CC BY-SA 3.0",
        sample="scikit-learn's 1,797 scanned 8x8 digits, enlarged (UCI, CC BY 4.0)",
    ),
}


@dataclass(frozen=True)
class Images:
    """A labelled image set with its fixed training and test parts. Usage: `load_mnist().x_test`."""

    source: str
    """`real:<first 8 of the content's SHA-256>` or `sample`; every run and figure carries it."""
    x_train: np.ndarray
    """(n, height, width) uint8, 0 to 255."""
    y_train: np.ndarray
    """(n,) uint8 labels from 0."""
    x_test: np.ndarray
    y_test: np.ndarray

    def head(self, train: int, test: int) -> "Images":
        """The first `train` and `test` images, for smoke runs. Usage: `data.head(512, 256)`."""
        return replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )


def load_mnist(choice: DataChoice = "auto") -> Images:
    """MNIST: 60,000 + 10,000 digits, 28x28, white on black. Usage: `data = load_mnist("auto")`.

    `real` leaves with exit code 2 when the real set can't be had; `auto` then warns and gives the
    sample: 1,437 training and 360 test digits (scikit-learn's, enlarged to MNIST's form).
    """
    arrays, source = _load("mnist", choice)
    return Images(source, **arrays) if arrays else Images("sample", **_sample_digits())


def read_verified(path: Path, origin: Origin) -> dict[str, np.ndarray]:
    """The arrays of `path`, checked by shape and SHA-256. Usage: `read_verified(path, origin)`.

    Raises `DataError` for a truncated, tampered or foreign file, naming it.
    """
    digest = hashlib.sha256()
    arrays = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name, shape in origin.shapes.items():
                array = archive[name]
                if array.shape != shape:
                    raise DataError(f"{path}: {name} has shape {array.shape}, expected {shape}")
                arrays[name] = np.ascontiguousarray(array, dtype=np.uint8)
                digest.update(arrays[name])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or unreadable ({error})") from error
    if digest.hexdigest() != origin.content_sha256:
        raise DataError(
            f"{path}: SHA-256 of the content is {digest.hexdigest()[:8]}..., "
            f"expected {origin.content_sha256[:8]}..."
        )
    return arrays


def keras_cache() -> Path:
    """Folder where Keras keeps its data sets. Usage: `keras_cache() / "mnist.npz"`."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"


def _load(name: str, choice: DataChoice) -> tuple[dict[str, np.ndarray] | None, str]:
    """The real arrays and their source, or `(None, "sample")`; see the module's first lines."""
    if choice == "sample":
        return None, "sample"
    origin = ORIGINS[name]
    tried = []
    folder = os.environ.get("LABKIT_DATA")
    if folder is None:
        tried.append("LABKIT_DATA: not set")
    places = [Path(folder).expanduser()] if folder else []
    for path in (place / origin.file for place in [*places, keras_cache()]):
        if not path.exists():
            tried.append(f"{path}: absent")
            continue
        try:
            return read_verified(path, origin), f"real:{origin.content_sha256[:8]}"
        except DataError as error:
            print(f"warning: damaged data file, not used: {error}", file=sys.stderr)
            tried.append(str(error))
    try:
        path = _download(origin)
        return read_verified(path, origin), f"real:{origin.content_sha256[:8]}"
    except DataError as error:
        tried.append(str(error))
    report = "".join(f"\n  - {line}" for line in tried)
    advice = f"Put {origin.file} into a folder and set LABKIT_DATA to that folder."
    if choice == "real":
        fail(f"--data real: {name} can't be had. Tried:{report}\n{advice}")
    print(
        f"warning: real {name} can't be had, so this run uses a sample: {origin.sample}.\n"
        f"Its figures are not {name} figures. Tried:{report}\n{advice}",
        file=sys.stderr,
    )
    return None, "sample"


def _download(origin: Origin) -> Path:
    """Fetch into the Keras cache: temporary file, SHA-256, then an atomic rename."""
    import pooch
    import requests

    try:
        return Path(
            pooch.retrieve(
                origin.url,
                known_hash=f"sha256:{origin.url_sha256}",
                fname=origin.file,
                path=keras_cache(),
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=(3, 30)),
            )
        )
    except (requests.RequestException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{origin.url}: {type(error).__name__}: {reason[:200]}") from error


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
