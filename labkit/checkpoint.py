"""Files of networks: the one that makes `--resume` exact, and finished networks read again."""

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.arguments import fail

if TYPE_CHECKING:
    import keras


class Checkpoint:
    """What a training was after its last complete epoch, in an `.npz` file.

    Usage: `Checkpoint(folder / "checkpoint.npz")`.
    """

    def __init__(self, file: Path) -> None:
        """Read the header of `file`, if it is there; otherwise nothing is done yet."""
        self.file = file
        self.epochs = 0
        """Complete epochs."""
        self.history: dict[str, list[float]] = {}
        """Metrics of these epochs."""
        self.seconds = 0.0
        """Time spent on them."""
        if file.exists():
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
            self.epochs, self.history = header["epoch"], header["history"]
            self.seconds = header["seconds"]

    def arrays(self) -> list[np.ndarray]:
        """The arrays, in the order in which they were saved. Usage: `checkpoint.arrays()`."""
        with self.file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return [archive[f"v{index}"] for index in range(len(archive.files) - 1)]

    def save(
        self, epochs: int, history: dict[str, list[float]], seconds: float, arrays: list[Any]
    ) -> None:
        """Replace the file atomically. Usage: `checkpoint.save(3, history, 12.5, weights)`.

        Raises `OSError` when the disk is full; the file before stays.
        """
        header = {"epoch": epochs, "history": history, "seconds": seconds}
        part = self.file.with_suffix(".part.npz")
        try:
            names = {f"v{index}": array for index, array in enumerate(arrays)}
            np.savez(part, header=np.array(json.dumps(header)), **names)
            os.replace(part, self.file)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def load_model(path: Path, compiled: bool = True) -> "keras.Model":
    """A network saved as `.keras`. Usage: `model = load_model(run.folder / "model.keras")`.

    Modules with its own layers must be imported before; `compiled` with its loss and optimizer.
    Leaves with exit code 2 where it can't be read, naming the Keras that saved it and the one here.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=compiled)
    except Exception as error:  # Keras raises many kinds
        reason = " ".join(str(error).split())[:200]
        try:
            with zipfile.ZipFile(path) as archive:
                saved = json.loads(archive.read("metadata.json"))["keras_version"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            saved = keras.__version__
        if saved == keras.__version__:
            fail(f"{path} can't be read: train it again ({reason})")
        fail(
            f"{path}, saved by Keras {saved}, can't be read by Keras {keras.__version__}: "
            f"train it again, or `pip install keras=={saved}` ({reason})"
        )
