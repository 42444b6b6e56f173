"""ETTh1: seven hourly measurements of an electricity transformer, July 2016 to June 2018.

H. Zhou et al., "Informer" (AAAI 2021), https://github.com/zhouhaoyi/ETDataset, CC BY-ND 4.0: six
loads and, last, the oil temperature `OT`. The file is looked for in `$LABKIT_DATA`, then in the
Keras cache, then downloaded; it is used only if its SHA-256 is right.
"""

import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np

import labkit
from labkit.arguments import fail
from labkit.datasets import keras_cache

FILE = "ETTh1.csv"
URL = f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/{FILE}"
SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURS = 17420
MONTH = 30 * 24
"""Hours of a month in the standard protocol."""


def load_etth1(choice: labkit.DataChoice = "auto") -> tuple[np.ndarray, str]:
    """The measurements, (17420, 7) float64 in the file's units, and the data source.

    `real` leaves with exit code 2 when the file can't be had; `auto` then warns and gives the
    sample, `sample_hours`.
    """
    if choice == "sample":
        return sample_hours(), "sample"
    folder = os.environ.get("LABKIT_DATA")
    places = [Path(folder).expanduser()] if folder else []
    tried = [] if folder else ["LABKIT_DATA: not set"]
    for path in (place / FILE for place in [*places, keras_cache()]):
        if not path.exists():
            tried.append(f"{path}: absent")
            continue
        try:
            return read_etth1(path), f"real:{SHA256[:8]}"
        except labkit.DataError as error:
            print(f"warning: damaged data file, not used: {error}", file=sys.stderr)
            tried.append(str(error))
    try:
        return read_etth1(_download()), f"real:{SHA256[:8]}"
    except labkit.DataError as error:
        tried.append(str(error))
    report = "".join(f"\n  - {line}" for line in tried)
    advice = f"Put {FILE} into a folder and set LABKIT_DATA to that folder."
    if choice == "real":
        fail(f"--data real: ETTh1 can't be had. Tried:{report}\n{advice}")
    print(
        "warning: real ETTh1 can't be had, so this run uses a sample: generated hours with a daily "
        f"and a weekly rhythm.\nIts figures are not ETTh1 figures. Tried:{report}\n{advice}",
        file=sys.stderr,
    )
    return sample_hours(), "sample"


def read_etth1(path: Path) -> np.ndarray:
    """The measurements in `path`, (17420, 7) float64.

    Raises `labkit.DataError` for an absent, truncated or changed file, naming it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise labkit.DataError(f"{path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise labkit.DataError(f"{path}: SHA-256 is {found[:8]}..., expected {SHA256[:8]}...")
    text = io.StringIO(content.decode())
    return np.loadtxt(text, delimiter=",", skiprows=1, usecols=range(1, 1 + len(COLUMNS)))


def _download() -> Path:
    """Fetch into the Keras cache: temporary file, SHA-256, then an atomic rename."""
    import pooch
    import requests

    try:
        return Path(
            pooch.retrieve(
                URL, known_hash=f"sha256:{SHA256}", fname=FILE, path=keras_cache(),
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=(3, 30)),
            )
        )  # fmt: skip
    except (requests.RequestException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise labkit.DataError(f"{URL}: {type(error).__name__}: {reason[:200]}") from error


def sample_hours(hours: int = 20 * MONTH) -> np.ndarray:
    """A stand-in, (hours, 7): a daily and a weekly rhythm, drift and noise; seed 0."""
    rng = np.random.default_rng(0)
    time = np.arange(hours)[:, None]
    phase, weight = rng.uniform(0, 2 * np.pi, (2, 7)), rng.uniform(0.5, 1.5, (2, 7))
    daily = weight[0] * np.sin(2 * np.pi * time / 24 + phase[0])
    weekly = weight[1] * np.sin(2 * np.pi * time / 168 + phase[1])
    drift = np.cumsum(rng.normal(0, 0.03, (hours, 7)), axis=0)
    return daily + 0.5 * weekly + drift + rng.normal(0, 0.3, (hours, 7))
