"""Files of real data: where they come from, where they are looked for, whether they are right.

A set is looked for in `$LABKIT_DATA` (a folder filled once by a user or a class), then in the
Keras cache, then downloaded. What is read is always verified; a damaged file is named and never
used. With `auto`, and only then, a sample is the last resort.
"""

import hashlib
import io
import os
import pickle
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from labkit.arguments import DataChoice, fail

Content = TypeVar("Content")
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    tarfile.TarError,
    pickle.UnpicklingError,
)
"""What NumPy, Pillow and the containers raise for a damaged file."""


class DataError(Exception):
    """A file is not the data set it should be; the message names it and says why."""


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from and how it is recognised. Usage: `ORIGIN.licence`.

    A lab that has one declares it at the top of a module as `ORIGIN`, or several as `ORIGINS`, a
    dictionary: the data table of the README is made of them.
    """

    name: str
    """What people call it."""
    credit: str
    """Authors, for the data table."""
    licence: str
    files: tuple[str, ...]
    """Files or folders below `$LABKIT_DATA` and the Keras cache, any of which will do."""
    page: str
    """Where a person gets it by hand."""
    sample: str
    """What stands in when nothing else can be had; empty: nothing does."""
    url: str = ""
    """Address of the first of `files`; empty: there is no download without an account."""
    digest: str = ""
    """`<algorithm>:<hex>` of the file behind `url`, or of the file itself."""
    content_sha256: str = ""
    """SHA-256 of the arrays one after the other, where several containers hold the same data."""
    cache: str = "datasets"
    """Folder below Keras' own where a download is kept."""

    @property
    def advice(self) -> str:
        """What to do when it can't be had. Usage: `fail(ORIGIN.advice)`."""
        return (
            f"Put {self.files[0]} ({self.page}) into a folder and set LABKIT_DATA to that folder."
        )


def obtain(
    origin: Origin,
    choice: DataChoice,
    read: Callable[[Path], tuple[Content, str]],
    sample: Callable[[], Content] | None = None,
    given: Path | None = None,
) -> tuple[Content, str]:
    """The content of a set and its data source. Usage: `obtain(ORIGIN, choice, read, sample)`.

    `read(path)` returns the content and its SHA-256, and raises `DataError` for what is damaged or
    foreign. `given` is a file or folder that the user named: no other is looked for. The source is
    `real:<first 8 of the SHA-256>`, or `sample`.

    `real`, and a `given` path, leave with exit code 2 when nothing can be read, naming all that was
    tried; `auto` then warns and gives the sample.
    """
    if choice == "sample" and given is None:
        return sample(), "sample"
    tried: list[str] = []
    content = search(origin, read, tried) if given is None else _read(given, read, tried)
    if content is not None:
        return content[0], f"real:{content[1][:8]}"
    report = "".join(f"\n  - {line}" for line in tried)
    if choice == "real" or given is not None or sample is None:
        asked = f"{given}: " if given else "--data real: "
        fail(f"{asked}{origin.name} can't be had. Tried:{report}\n{origin.advice}")
    print(
        f"warning: real {origin.name} can't be had, so this run uses a sample: {origin.sample}.\n"
        f"Its figures are not {origin.name} figures. Tried:{report}\n{origin.advice}",
        file=sys.stderr,
    )
    return sample(), "sample"


def search(
    origin: Origin, read: Callable[[Path], tuple[Content, str]], tried: list[str]
) -> tuple[Content, str] | None:
    """What `read` makes of the first good file, or None. Usage: see `obtain`.

    `tried` is told of every place that has none, or a damaged one.
    """
    folder = os.environ.get("LABKIT_DATA")
    if not folder:
        tried.append("LABKIT_DATA: not set")
    places = [_data_folder(folder, origin)] if folder else []
    for place in [*places, keras_cache(origin.cache)]:
        for name in origin.files:
            try:
                there = (place / name).exists()
            except OSError as error:  # a folder that may not be read
                tried.append(f"{place / name}: {error.strerror}")
                continue
            if not there:
                tried.append(f"{place / name}: absent")
            elif (content := _read(place / name, read, tried)) is not None:
                return content
    if origin.url:
        try:
            return read(download(origin))
        except DataError as error:
            tried.append(str(error))
    return None


def _data_folder(given: str, origin: Origin) -> Path:
    """The folder that `LABKIT_DATA` means, also where it names the set itself."""
    folder = Path(os.path.expanduser(given))
    names_the_set = folder.name in {Path(name).parts[0] for name in origin.files}
    return folder.parent if names_the_set else folder


def _read(
    path: Path, read: Callable[[Path], tuple[Content, str]], tried: list[str]
) -> tuple[Content, str] | None:
    try:
        return read(path)
    except DataError as error:
        if path.exists():
            print(f"warning: damaged data file, not used: {error}", file=sys.stderr)
        tried.append(str(error))
        return None


def verify(path: Path, digest: str, text: bool = False) -> str:
    """The file's SHA-256, once `digest` is found right. Usage: `verify(path, ORIGIN.digest)`.

    `digest` is `<algorithm>:<hex>`; a `text` may have another system's line ends. Raises
    `DataError` naming a file that is absent, unreadable or changed.
    """
    algorithm, _, expected = digest.partition(":")
    try:
        with io.BytesIO(read_text(path).encode()) if text else path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{path}: absent") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: unreadable ({error})") from error
    if found != expected:
        raise DataError(
            f"{path}: its {algorithm} is {found[:8]}..., the official file's is {expected[:8]}..."
        )
    return sha256


def read_text(path: Path) -> str:
    """A text file's content, the same whichever system wrote it. Usage: `read_text(csv_file)`.

    Without Windows' carriage returns and its byte order mark. Raises `OSError`, and
    `UnicodeDecodeError` for what is no UTF-8.
    """
    return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What is in `folder`, sorted, without what systems and notebooks leave there.

    Usage: `entries(root)`, `entries(folder, "*_mask.*")`. Left out are hidden files (`.DS_Store`,
    `._name` of macOS, `.ipynb_checkpoints`), `Thumbs.db`, `desktop.ini` and `__MACOSX`.
    """
    foreign = {"thumbs.db", "desktop.ini", "__macosx"}
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(
            part.startswith(".") or part.lower() in foreign
            for part in path.relative_to(folder).parts
        )
    )


def keras_cache(folder: str = "datasets") -> Path:
    """Where Keras keeps its downloads. Usage: `keras_cache() / "mnist.npz"`."""
    given = os.environ.get("KERAS_HOME")
    if not given:
        try:
            given = Path.home() / ".keras"
        except RuntimeError:  # a user without a home, as in some containers
            given = Path(tempfile.gettempdir()) / ".keras"
    return Path(given) / folder


def download(origin: Origin) -> Path:
    """Fetch into the Keras cache, if it isn't there. Usage: `path = download(ORIGIN)`.

    A temporary file, the digest, then an atomic rename. Raises `DataError` naming the address.
    """
    import pooch
    import requests

    try:
        return Path(
            pooch.retrieve(
                origin.url,
                known_hash=origin.digest,
                fname=origin.files[0],
                path=keras_cache(origin.cache),
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=(3, 30)),
            )
        )
    except (requests.RequestException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rpartition("Caused by ")[2]  # urllib3 says it last
        if isinstance(error, PermissionError):
            reason += "; KERAS_HOME can name another folder"
        raise DataError(f"{origin.url}: {type(error).__name__}: {reason[:200]}") from error
