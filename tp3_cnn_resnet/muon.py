"""Muon: an optimiser whose steps even out the directions of a kernel.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A module of its
own because it imports Keras.
"""

from typing import Any

import keras
from keras import ops


def orthogonalised(matrix: keras.KerasTensor) -> keras.KerasTensor:
    """`matrix` (m, n) with its singular values brought nearer to 1, its directions kept.

    Three steps of the Newton-Schulz iteration, which needs products of matrices only. Its
    polynomial is steep at 0: each step lifts a small singular value 3.4 times. From a flat spectrum
    they end between 0.7 and 1.2; from one that falls as 1/k over 256 directions, their median ends
    at a quarter. More steps would lift these too, and take longer.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return ops.transpose(orthogonalised(ops.transpose(matrix)))  # the smaller square below
    x = matrix / (ops.norm(ops.reshape(matrix, (-1,))) + 1e-7)  # no singular value above 1
    for _ in range(3):
        square = x @ ops.transpose(x)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@keras.saving.register_keras_serializable("tp3_cnn_resnet")
class Muon(keras.optimizers.SGD):
    """Orthogonal steps for convolution kernels; Keras' SGD for the dense layer and the shifts.

    A gradient's largest directions drown the others. Here a kernel, seen as a matrix of as many
    columns as filters, moves by more even lengths along all of them. Normalisation follows, so a
    kernel's own length is without effect: before each step it is set to the square root of the
    number of filters, an orthogonal matrix's, and the learning rate is a share of that.

    Keras' own Muon leaves convolution kernels to AdamW.
    """

    kernel_momentum = 0.6
    dense_rate, shift_rate = 4.6, 294.0
    """In learning rates of the kernels.

    A shift adds up the gradients of a whole channel but moves it as a whole, too; at the dense
    layer's rate it would hardly leave zero within a training as short as this.
    """

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: Any
    ) -> None:
        """One step of one variable."""
        if len(variable.shape) < 4:
            ratio = self.shift_rate if len(variable.shape) == 1 else self.dense_rate
            super().update_step(gradient, variable, ratio * learning_rate)
            return
        momentum = self.momentums[self._get_variable_index(variable)]
        gathered = self.kernel_momentum * momentum + gradient
        self.assign(momentum, gathered)
        direction = gradient + self.kernel_momentum * gathered  # Nesterov's
        filters = variable.shape[-1]
        arithmetic = keras.config.dtype_policy().compute_dtype
        matrix = ops.cast(ops.reshape(direction, (-1, filters)), arithmetic)
        step = ops.reshape(ops.cast(orthogonalised(matrix), variable.dtype), variable.shape)
        length = ops.norm(ops.reshape(variable, (-1,)))
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign(variable, variable * filters**0.5 / length - rate * step)
