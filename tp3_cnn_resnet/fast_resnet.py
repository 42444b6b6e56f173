"""`fast-resnet`, built for the time to an accuracy on a CPU: network, augmentation, optimizer.

What each part is for, and where it comes from:

- Frozen whitening: the first convolution is computed from the pictures, not learnt (Page 2019).
- Alternating flips: each picture is mirrored every other epoch, so that two epochs show both
  sides once instead of leaving it to chance (Jordan, arXiv 2404.00498, section 3.6).
- Small pictures first: an epoch at 24x24 pixels costs 0.6 of one at 32x32.
- Muon: each step of a convolution's kernel is made orthogonal, so that no direction starves
  (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
- Label smoothing and one triangle of the learning rate, up for a fifth of the steps, then down.

A module of its own because it imports Keras; `cnn_classification.py` trains it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

import labkit
from labkit.batches import Batches
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
    """How long a training takes and how wide its network is; chosen on validation pictures."""

    epochs: int
    small_share: float
    """The first epochs, this share of them, see pictures of 24x24 pixels."""
    widths: tuple[int, ...] = (64, 256, 256)
    batch_size: int = 500
    peak_learning_rate: float = 0.012
    weight_decay: float = 0.05
    """Decoupled, of the convolutions; multiplied by the learning rate at each step."""
    label_smoothing: float = 0.2

    def small_epochs(self, epochs: int) -> int:
        """How many of `epochs` see small pictures."""
        return round(epochs * self.small_share)


RECIPES = {
    "default": Recipe(epochs=8, small_share=0.5, widths=(64, 128, 256)),
    "long": Recipe(epochs=18, small_share=0.33),
    "record": Recipe(epochs=18, small_share=0.33, widths=(128, 384, 384)),
}


# --- Network -------------------------------------------------------------------------------------


def whitening(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (2, 2, 3, 24) and bias (24,) of a convolution whose outputs are uncorrelated.

    `images` is (n, h, w, 3) in 0..1. The 12 numbers of a 2x2 patch are turned to the axes of
    their covariance and scaled to variance 1 each; the other 12 outputs are the negatives, so
    that nothing is lost in the ReLU that follows.
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH * 3)  # (m, 12)
    mean = patches.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(patches.T))
    white = axes / np.sqrt(variances + 3e-5)  # (12, 12), one column an output; 3e-5: noise floor
    kernel = np.concatenate([white, -white], axis=1)  # (12, 24)
    return kernel.reshape(PATCH, PATCH, 3, -1), -mean @ kernel


def build(images: np.ndarray, recipe: Recipe) -> keras.Model:
    """Whitening, then for each width a convolution with pooling and a residual one.

    `images` (n, 32, 32, 3) uint8 are the training pictures: the first 5,000 are those to whiten
    by. Pictures of any size from 16 pixels go in, so that the training can begin with small ones.
    """
    inputs = keras.Input((None, None, 3))  # (B, 32, 32, 3)
    whiten = keras.layers.Conv2D(24, PATCH, trainable=False, name="whitening")
    x = keras.layers.Activation("relu")(whiten(inputs))  # (B, 31, 31, 24)
    whiten.set_weights(whitening(to_input(images[:5000])))
    for width in recipe.widths:  # halves the sides: 31, 15, 7, 3
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = normalise_and_activate(keras.layers.MaxPooling2D()(x))
        y = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.Add()([x, normalise_and_activate(y)])
    x = keras.layers.GlobalMaxPooling2D()(x)  # (B, 256)
    x = keras.layers.Dense(NUM_CLASSES, use_bias=False, dtype="float32")(x)  # (B, 10)
    x = keras.layers.Rescaling(LOGIT_SCALE, dtype="float32")(x)
    outputs = keras.layers.Softmax(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="fast_resnet")


def normalise_and_activate(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation that remembers two or three batches, then ReLU; the shape stays."""
    x = OnePassBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False)(x)
    return keras.layers.Activation("relu")(x)


# --- Batches -------------------------------------------------------------------------------------


def translate(images: np.ndarray, rng: np.random.Generator, reach: int = 2) -> np.ndarray:
    """`images` (n, h, w, c), each moved by -reach..reach pixels; the border is mirrored."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    top, left = rng.integers(0, 2 * reach + 1, (2, count, 1, 1))
    rows, columns = (
        top + np.arange(height)[:, None],
        left + np.arange(width),
    )  # (n, h, 1), (n, 1, w)
    return padded[np.arange(count)[:, None, None], rows, columns]


class AlternatingBatches(Batches):
    """Batches whose pictures are translated, and mirrored every other epoch."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, first_epoch: int
    ) -> None:
        """Batches of `images` (n, h, w, 3) uint8 as 0..1 and `labels` (n, classes)."""
        mirrored = np.random.default_rng(seed).random((len(images), 1, 1, 1)) < 0.5
        images = np.where(mirrored, images[:, :, ::-1], images)
        super().__init__(images, labels, batch_size, seed, first_epoch, to_translated_input)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        images, labels = super().__getitem__(index)
        return (images[:, :, ::-1] if self.epoch % 2 else images), labels


def to_translated_input(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey values 0..255 to the networks' input in 0..1, each picture moved by 0 to 2 pixels."""
    return to_input(translate(images, rng))


# --- Optimiser -----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tp3_cnn_resnet")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras' Muon for convolutions: a kernel (h, w, in, out) is a matrix (h * w * in, out).

    Keras' own leaves kernels to Adam, as it does with all that is no matrix; here Adam has what
    is left, the last layer and the shifts of the normalisations.
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x: keras.KerasTensor, steps: int) -> keras.KerasTensor:
        """The nearest matrix with orthogonal rows or columns, in the training's precision."""
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        precise_enough = ops.cast(matrix, keras.config.dtype_policy().compute_dtype)
        orthogonal = super().zeropower_via_newtonschulz5(precise_enough, steps)
        return ops.cast(ops.reshape(orthogonal, x.shape), x.dtype)

    def lr_adjust(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Scale the step as Keras does for a matrix, to the size that Adam's would have."""
        return ops.reshape(super().lr_adjust(ops.reshape(x, (-1, x.shape[-1]))), x.shape)


# --- Training ------------------------------------------------------------------------------------


def compile_with(recipe: Recipe, model: keras.Model, steps: int) -> None:
    """Give `model` the recipe's loss and optimiser, whose learning rate runs over `steps`."""
    model.compile(
        ConvolutionMuon(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=recipe.peak_learning_rate / 20,
                warmup_target=recipe.peak_learning_rate,
                warmup_steps=steps // 5,
                decay_steps=steps - steps // 5,
                alpha=0.002,
            ),
            weight_decay=recipe.weight_decay,
            momentum=0.9,
            adam_lr_ratio=2.0,
            adam_beta_2=0.99,
            adam_weight_decay=None,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower than oneDNN on a CPU
    )


def stages(images: np.ndarray, small: int, epochs: int) -> list[tuple[np.ndarray, int, int]]:
    """Pictures, first and last epoch (from 0, the end excluded) of the two parts of a training.

    `images` is (n, 32, 32, 3) uint8; the first `small` epochs see them at 24x24 pixels.
    """
    if not small:
        return [(images, 0, epochs)]
    shrunk = ops.convert_to_numpy(ops.image.resize(images, (24, 24), antialias=True))
    return [(np.round(shrunk).astype(np.uint8), 0, small), (images, small, epochs)]


def train(
    model: keras.Model,
    recipe: Recipe,
    config: "Config",
    training: "Part",
    validation: "Part",
    run: labkit.Run,
) -> None:
    """Fit `model`: first on small pictures, then on whole ones, under one learning-rate cycle."""
    compile_with(recipe, model, config.epochs * -(-len(training.images) // recipe.batch_size))
    checkpoints = run.checkpoints(model)
    small = recipe.small_epochs(config.epochs)
    for images, first, last in stages(training.images, small, config.epochs):
        first = max(first, run.first_epoch)
        if first >= last:  # done before the run was interrupted
            continue
        model.fit(
            AlternatingBatches(images, training.one_hot, recipe.batch_size, config.seed, first),
            validation_data=(to_input(validation.images), validation.one_hot),
            epochs=last,
            initial_epoch=first,
            shuffle=False,  # the batches are shuffled, in an order that a resumed run repeats
            callbacks=[checkpoints],
            verbose=2 if config.smoke else "auto",
        )
