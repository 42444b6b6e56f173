"""The Keras callback behind `Run.checkpoints`; a module of its own because it imports Keras."""

from collections.abc import Callable

import keras
import numpy as np


class EpochCheckpoint(keras.callbacks.Callback):
    """Hands every epoch's state on, and puts a former one back. Usage: see `Run.checkpoints`.

    The state is all variables of the model (weights, moving averages, the states of Dropout's
    random generators) and of the optimiser. Other callbacks' memory, such as EarlyStopping's, is
    not part of it. A training in several calls of `fit()` gives one callback to all of them.
    """

    def __init__(
        self,
        model: keras.Model,
        former: list[np.ndarray] | None,
        save: Callable[[int, dict[str, float], list[np.ndarray]], None],
    ) -> None:
        """Begin the training of `model` from the `former` state, if there is one.

        `save(epoch, metrics, state)` is called after each epoch (from 0).
        """
        super().__init__()
        self.trained, self.former, self.save = model, former, save
        self._began = False

    def _variables(self) -> list[keras.Variable]:
        return [*self.trained.variables, *self.trained.optimizer.variables]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Put back what the last complete epoch left, before the first call of `fit()`."""
        if self._began:
            return
        self._began = True
        self.trained.optimizer.build(self.trained.trainable_variables)
        if self.former is not None:
            for variable, value in zip(self._variables(), self.former, strict=True):
                variable.assign(value)
            self.former = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save this epoch."""
        state = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        self.save(epoch, logs or {}, state)
