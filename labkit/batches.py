"""Shuffled batches that depend on seed and epoch alone; a module of its own as it imports Keras."""

from collections.abc import Callable

import keras
import numpy as np

Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Makes the model's input and target of a batch: `transform(x, y, rng) -> (x, y)`."""


class Batches(keras.utils.PyDataset):
    """Training batches for `fit()`, in an order that a resumed run repeats exactly.

    Usage: `fit(Batches(x, y, 128, seed, run.first_epoch), shuffle=False, initial_epoch=...)`.

    `shuffle=False` matters: `fit()` would otherwise draw the batches in an order of its own.

    `transform(x, y, rng)` makes the model's input and target of a batch, for example by moving an
    image and its mask together; its random generator is keyed by seed, epoch and batch. The last,
    smaller batch is kept.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        seed: int,
        first_epoch: int = 0,
        transform: Transform | None = None,
        draw: Callable[[np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        """Batches of `x` (n, ...) and `y` (n, ...), beginning with epoch `first_epoch`.

        `draw(rng)` gives the indices of an epoch, in its order and always as many; without it
        every example comes once.
        """
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.seed, self.epoch, self.transform = seed, first_epoch, transform
        self.draw = draw or (lambda rng: rng.permutation(len(x)))
        self.order = self._shuffled()
        """Indices of the current epoch's examples, one batch after the other."""

    def _shuffled(self) -> np.ndarray:
        return self.draw(np.random.default_rng([self.seed, self.epoch]))

    def __len__(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        x, y = self.x[chosen], self.y[chosen]
        if self.transform:
            x, y = self.transform(x, y, np.random.default_rng([self.seed, self.epoch, index]))
        return x, y

    def on_epoch_end(self) -> None:
        """Shuffle anew for the next epoch."""
        self.epoch += 1
        self.order = self._shuffled()
