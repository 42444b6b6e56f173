"""The file that makes `--resume` exact: what a training was after its last complete epoch."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np


class Checkpoint:
    """An `.npz` file of arrays with a header. Usage: `Checkpoint(folder / "checkpoint.npz")`."""

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
            with np.load(file, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
            self.epochs, self.history = header["epoch"], header["history"]
            self.seconds = header["seconds"]

    def arrays(self) -> list[np.ndarray]:
        """The arrays, in the order in which they were saved. Usage: `checkpoint.arrays()`."""
        with np.load(self.file, allow_pickle=False) as archive:
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
