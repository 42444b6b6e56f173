"""`fast-resnet`, built for the time to an accuracy on a CPU: network, augmentation, optimizer.

What each part is for, and where it comes from:

- Frozen whitening: the first convolution is computed from the images, not learnt (Page 2019).
- Identity kernels: each convolution begins by passing its input's channels on, which is what
  skip connections do in a residual network; this one has none.
- Alternating flips: each image is mirrored every other epoch, so that two epochs show both
  sides once instead of leaving it to chance.
- Small images first, in the shortest budget: at 24x24 pixels an epoch has 9/16 of the work that
  it has at 32x32.
- SiLU: close to the original's GELU, and cheaper.
- Orthogonal steps: a kernel's step has the same length in all directions, whatever its gradient.
- Fast shifts: the normalisations' shifts learn 64 times as fast as the dense layer.
- Label smoothing, and a learning rate that falls to nothing in a straight line.

Small images are ours. Orthogonal steps are from Jordan et al., "Muon: An optimizer for hidden
layers in neural networks" (2024), the rest from Jordan, "94% on CIFAR-10 in 3.29 Seconds on a
Single GPU" (arXiv 2404.00498, section 3).

A module of its own because it imports Keras; `cnn_classification.py` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

import labkit
from labkit.batches import Batches
from tp3_cnn_resnet.augmentation import mirrored, translated
from tp3_cnn_resnet.models import NUM_CLASSES, to_input
from tp3_cnn_resnet.normalisation import OnePassBatchNormalization

if TYPE_CHECKING:
    from tp3_cnn_resnet.cnn_classification import Config, Part

PATCH = 2
"""Side of the whitened patches in pixels."""
LOGIT_SCALE = 1 / 9
"""Keeps the first softmax soft; the value is Jordan's."""


@dataclass(frozen=True)
class Recipe:
    """How long a training takes, how wide its network is, and how it learns."""

    epochs: int
    small_share: float = 0.0
    """The first epochs, this share of them, see images of 24x24 pixels."""
    widths: tuple[int, ...] = (64, 256, 256)
    reach: int = 2
    """Images move by up to so many pixels."""
    batch_size: int = 1000
    learning_rate: float = 0.18
    """Of the kernels, at the beginning; `Muon` says what it is a share of."""
    weight_decay: float = 0.041
    """Of dense layer and shifts, multiplied by the learning rate at each step."""
    label_smoothing: float = 0.2
    validation_share: float = 0.1
    """Share of the training images kept out; 0 where nothing is left to choose by them."""

    def small_epochs(self, epochs: int) -> int:
        """How many of `epochs` see small images."""
        return round(epochs * self.small_share)


RECIPES = {
    "default": Recipe(epochs=5, small_share=0.6, widths=(64, 192, 256)),
    "long": Recipe(epochs=12, validation_share=0.0),
    "record": Recipe(epochs=14, widths=(128, 384, 384), validation_share=0.0),
}


# --- Network -------------------------------------------------------------------------------------


def whitening(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (2, 2, 3, 24) and bias (24,) of a convolution whose outputs are uncorrelated.

    `images` is (n, h, w, 3) in 0..1. The 12 numbers of a 2x2 patch are turned to the axes of
    their covariance and scaled to variance 1 each; the other 12 outputs are the negatives, so
    that nothing is lost in the activation that follows.
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH * 3)  # (m, 12)
    mean = patches.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(patches.T))
    white = axes / np.sqrt(variances + 3e-5)  # (12, 12), one column an output; 3e-5: noise floor
    kernel = np.concatenate([white, -white], axis=1)  # (12, 24)
    return kernel.reshape(PATCH, PATCH, 3, -1), -mean @ kernel


def build(images: np.ndarray, recipe: Recipe) -> keras.Model:
    """Whitening, then for each width a convolution with pooling and one without.

    `images` (n, 32, 32, 3) uint8 are the training images: the first 5,000 are those to whiten
    by. Images of any size from 16 pixels go in, so that the training can begin with small ones.
    """
    inputs = keras.Input((None, None, 3))  # (B, 32, 32, 3)
    whiten = keras.layers.Conv2D(24, PATCH, trainable=False, name="whitening")
    x = keras.layers.Activation("silu")(whiten(inputs))  # (B, 31, 31, 24)
    whiten.set_weights(whitening(to_input(images[:5000])))
    for width in recipe.widths:  # halves the sides: 31, 15, 7, 3
        x = normalise_and_activate(keras.layers.MaxPooling2D()(convolve(x, width)))
        x = normalise_and_activate(convolve(x, width))
    x = keras.layers.GlobalMaxPooling2D()(x)  # (B, widths[-1])
    x = keras.layers.Dense(NUM_CLASSES, use_bias=False, dtype="float32")(x)  # (B, 10)
    x = keras.layers.Rescaling(LOGIT_SCALE, dtype="float32")(x)
    outputs = keras.layers.Softmax(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="fast_resnet")


def convolve(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """A 3x3 convolution whose first filters pass the input's channels on: (B, h, w, filters)."""
    layer = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)
    outputs = layer(x)
    kernel = layer.get_weights()[0]  # (3, 3, in, filters)
    passed = range(min(kernel.shape[2:]))
    kernel[..., passed] = 0
    kernel[1, 1, passed, passed] = 1
    layer.set_weights([kernel])
    return outputs


def normalise_and_activate(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation that remembers two or three batches, then SiLU; the shape stays."""
    x = OnePassBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False)(x)
    return keras.layers.Activation("silu")(x)


# --- Batches -------------------------------------------------------------------------------------


class AlternatingBatches(Batches):
    """Batches whose images move by up to `reach` pixels, and are mirrored every other epoch."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        recipe: Recipe,
        seed: int,
        first_epoch: int,
    ) -> None:
        """Batches of `images` (n, h, w, 3) uint8 as 0..1 and `labels` (n, classes)."""
        first = np.random.default_rng(seed).random(len(images)) < 0.5

        def moved(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return to_input(translated(batch, rng, recipe.reach))

        images = mirrored(images, first)
        super().__init__(images, labels, recipe.batch_size, seed, first_epoch, moved)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        images, labels = super().__getitem__(index)
        return (images[:, :, ::-1] if self.epoch % 2 else images), labels


# --- Optimiser -----------------------------------------------------------------------------------


def orthogonalised(matrix: keras.KerasTensor) -> keras.KerasTensor:
    """`matrix` (m, n) with its singular values brought close to 1, its directions kept.

    Three steps of the Newton-Schulz iteration, which needs products of matrices only. Its
    polynomial is steep at 0, to lift small singular values at once; they end near 1, not at it.
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
    columns as filters, moves by the same length along all of them. Normalisation follows, so a
    kernel's own length is without effect: before each step it is set to the square root of the
    number of filters, an orthogonal matrix's, and the learning rate is a share of that.

    Keras' own Muon leaves convolution kernels to AdamW.
    """

    def __init__(
        self,
        *arguments: Any,
        kernel_momentum: float = 0.6,
        dense_rate: float = 4.6,
        shift_rate: float = 294.0,
        **settings: Any,
    ) -> None:
        """As Keras' SGD; `dense_rate` and `shift_rate` are in learning rates of the kernels.

        A shift adds up the gradients of a whole channel but moves it as a whole, too; at the dense
        layer's rate it would hardly leave zero within a training as short as this.
        """
        super().__init__(*arguments, **settings)
        self.kernel_momentum = kernel_momentum
        self.dense_rate, self.shift_rate = dense_rate, shift_rate
        self.arithmetic = keras.config.dtype_policy().compute_dtype

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
        matrix = ops.cast(ops.reshape(direction, (-1, filters)), self.arithmetic)
        step = ops.reshape(ops.cast(orthogonalised(matrix), variable.dtype), variable.shape)
        length = ops.norm(ops.reshape(variable, (-1,)))
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign(variable, variable * filters**0.5 / length - rate * step)

    def get_config(self) -> dict[str, Any]:
        """Settings to save."""
        return super().get_config() | {
            "kernel_momentum": self.kernel_momentum,
            "dense_rate": self.dense_rate,
            "shift_rate": self.shift_rate,
        }


# --- Training ------------------------------------------------------------------------------------


def compile_with(recipe: Recipe, model: keras.Model, steps: int) -> None:
    """Give `model` the recipe's loss and optimiser, whose learning rate ends after `steps`."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        recipe.learning_rate, steps, end_learning_rate=0.0
    )
    model.compile(
        Muon(rate, momentum=0.85, nesterov=True, weight_decay=recipe.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower than oneDNN on a CPU
    )


def stages(images: np.ndarray, small: int, epochs: int) -> list[tuple[np.ndarray, int, int]]:
    """Images, first and last epoch (from 0, the end excluded) of the two parts of a training.

    `images` is (n, 32, 32, 3) uint8; the first `small` epochs see them at 24x24 pixels.
    """
    if not small:
        return [(images, 0, epochs)]
    shrunk = ops.convert_to_numpy(ops.image.resize(images, (24, 24), antialias=True))
    return [(np.round(shrunk).astype(np.uint8), 0, small), (images, small, epochs)]


def train(
    model: keras.Model,
    recipe: Recipe,
    config: Config,
    training: Part,
    validation: Part,
    run: labkit.Run,
) -> None:
    """Fit `model`: first on small images, then on whole ones, under one falling learning rate."""
    steps = config.epochs * -(-len(training.images) // recipe.batch_size)
    compile_with(recipe, model, steps)
    validated = (to_input(validation.images), validation.one_hot)
    small = recipe.small_epochs(config.epochs)
    checkpoints = run.checkpoints(model)
    for images, first, last in stages(training.images, small, config.epochs):
        first = max(first, run.first_epoch)
        if first >= last:  # done before the run was interrupted
            continue
        model.fit(
            AlternatingBatches(images, training.one_hot, recipe, config.seed, first),
            validation_data=validated if len(validation.images) else None,
            epochs=last,
            initial_epoch=first,
            shuffle=False,  # the batches are shuffled, in an order that a resumed run repeats
            callbacks=[checkpoints],
            verbose=2 if config.smoke else "auto",
        )
