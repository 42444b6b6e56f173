"""The Keras callback behind `Run.checkpoints`; a module of its own because it imports Keras."""

from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from labkit.run import Run


class EpochCheckpoint(keras.callbacks.Callback):
    """Records every epoch and restores an interrupted run. Usage: see `Run.checkpoints`.

    Saved are all variables of the model (weights, moving averages, the states of Dropout's random
    generators) and of the optimiser. Other callbacks' memory, such as EarlyStopping's, is not. A
    training in several calls of `fit()` gives one callback to all of them.
    """

    def __init__(self, run: "Run", model: keras.Model) -> None:
        """Record the training of `model` in `run`."""
        super().__init__()
        self.run = run
        self.trained = model
        self._began = False

    def _variables(self) -> list[keras.Variable]:
        return [*self.trained.variables, *self.trained.optimizer.variables]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Put back what the last complete epoch left, before the first call of `fit()`."""
        if self._began:
            return
        self._began = True
        self.trained.optimizer.build(self.trained.trainable_variables)
        if self.run.first_epoch == 0:
            return
        with np.load(self.run.checkpoint_file, allow_pickle=False) as archive:
            for index, variable in enumerate(self._variables()):
                variable.assign(archive[f"v{index}"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save this epoch."""
        arrays = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        self.run.record_epoch(epoch, logs or {}, arrays)
