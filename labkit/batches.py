"""Shuffled batches that depend on seed and epoch alone; a module of its own as it imports Keras."""

from collections.abc import Callable

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Training batches for `fit()`, in an order that a resumed run repeats exactly.

    Usage: `fit(Batches(x, y, 128, seed, run.first_epoch), shuffle=False, initial_epoch=...)`.

    `shuffle=False` matters: `fit()` would otherwise draw the batches in an order of its own.

    `transform(x, rng)` makes the model's input of a batch, for example by augmenting and scaling
    it; its random generator is keyed by seed, epoch and batch. The last, smaller batch is kept.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        seed: int,
        first_epoch: int = 0,
        transform: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        """Batches of `x` (n, ...) and `y` (n, ...), beginning with epoch `first_epoch`."""
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.seed, self.epoch, self.transform = seed, first_epoch, transform
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.x))

    def __len__(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.x[chosen]
        if self.transform:
            x = self.transform(x, np.random.default_rng([self.seed, self.epoch, index]))
        return x, self.y[chosen]

    def on_epoch_end(self) -> None:
        """Shuffle anew for the next epoch."""
        self.epoch += 1
        self._order = self._shuffled()
