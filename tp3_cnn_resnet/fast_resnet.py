"""`fast-resnet`, built for the time to an accuracy on a CPU: network, augmentation, optimizer.

What each part is for, and where it comes from:

- Frozen whitening: the first convolution is computed from the pictures, not learnt (Page 2019).
- Identity kernels: each convolution begins by passing its input's channels on.
- Alternating flips: each picture is mirrored every other epoch, so that two epochs show both
  sides once instead of leaving it to chance.
- Small pictures first: at 24x24 pixels an epoch has 9/16 of the work that it has at 32x32.
- SiLU: close to the original's GELU, and cheaper.
- Fast shifts: the normalisations' shifts learn 64 times as fast as the kernels.
- Lookahead: every five steps the weights go only part of the way, towards the end less and less.
- Label smoothing, and one cycle of the learning rate, up for a quarter of the steps, then down.

All but the small pictures and the residual connections are from Jordan, "94% on CIFAR-10 in 3.29
Seconds on a Single GPU" (arXiv 2404.00498, section 3), as are learning rate, momentum and decay.

A module of its own because it imports Keras; `cnn_classification.py` trains it.
"""

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
    """How long a training takes and how wide its network is; chosen on validation pictures."""

    epochs: int
    small_share: float
    """The first epochs, this share of them, see pictures of 24x24 pixels."""
    widths: tuple[int, ...] = (64, 256, 256)
    batch_size: int = 500
    peak_learning_rate: float = 0.73
    """For this batch; a larger one asks for a rate that is larger in proportion."""
    momentum: float = 0.85
    weight_decay: float = 0.009
    """Decoupled; multiplied by the learning rate at each step."""
    label_smoothing: float = 0.2
    validation_share: float = 0.1
    """Share of the training pictures kept out; 0 where nothing is left to choose by them."""

    def small_epochs(self, epochs: int) -> int:
        """How many of `epochs` see small pictures."""
        return round(epochs * self.small_share)


RECIPES = {
    "default": Recipe(epochs=6, small_share=0.5, widths=(64, 192, 256)),
    "long": Recipe(epochs=20, small_share=0.3),
    "record": Recipe(
        epochs=20,
        small_share=0.0,
        widths=(128, 384, 384),
        batch_size=1000,
        peak_learning_rate=1.27,  # the original's 0.87 times for these widths, for this batch
        validation_share=0.0,
    ),
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
    """Whitening, then for each width a convolution with pooling and a residual one.

    `images` (n, 32, 32, 3) uint8 are the training pictures: the first 5,000 are those to whiten
    by. Pictures of any size from 16 pixels go in, so that the training can begin with small ones.
    """
    inputs = keras.Input((None, None, 3))  # (B, 32, 32, 3)
    whiten = keras.layers.Conv2D(24, PATCH, trainable=False, name="whitening")
    x = keras.layers.Activation("silu")(whiten(inputs))  # (B, 31, 31, 24)
    whiten.set_weights(whitening(to_input(images[:5000])))
    for width in recipe.widths:  # halves the sides: 31, 15, 7, 3
        x = normalise_and_activate(keras.layers.MaxPooling2D()(convolve(x, width)))
        x = keras.layers.Add()([x, normalise_and_activate(convolve(x, width))])
    x = keras.layers.GlobalMaxPooling2D()(x)  # (B, 256)
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
    """Batches whose pictures move by up to 2 pixels, and are mirrored every other epoch."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, first_epoch: int
    ) -> None:
        """Batches of `images` (n, h, w, 3) uint8 as 0..1 and `labels` (n, classes)."""
        first = np.random.default_rng(seed).random(len(images)) < 0.5
        super().__init__(mirrored(images, first), labels, batch_size, seed, first_epoch, moved)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        images, labels = super().__getitem__(index)
        return (images[:, :, ::-1] if self.epoch % 2 else images), labels


def moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey values 0..255 to the networks' input in 0..1, each picture moved by 0 to 2 pixels."""
    return to_input(translated(images, rng, reach=2))


# --- Optimiser -----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tp3_cnn_resnet")
class FastShiftSGD(keras.optimizers.SGD):
    """Keras' SGD with `shift_rate` times the learning rate for vectors, here the shifts.

    A shift adds up the gradients of a whole channel but moves it as a whole, too; at the kernels'
    rate it would hardly leave zero within a training as short as this.
    """

    def __init__(self, *arguments: Any, shift_rate: float = 64.0, **settings: Any) -> None:
        """As Keras' SGD."""
        super().__init__(*arguments, **settings)
        self.shift_rate = shift_rate

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: Any
    ) -> None:
        """One step of one variable."""
        faster = self.shift_rate if len(variable.shape) == 1 else 1.0
        super().update_step(gradient, variable, learning_rate * faster)

    def get_config(self) -> dict[str, Any]:
        """Settings to save."""
        return super().get_config() | {"shift_rate": self.shift_rate}


class Lookahead(keras.callbacks.Callback):
    """Every five steps the weights go back part of the way to those of five steps ago.

    The part is 0.95^5 = 0.77 times the cube of the training's progress: nothing at first, while
    all is in motion, and an average over the last steps at the end (Zhang et al., arXiv
    1907.08610; the growing part is Jordan's). Each epoch begins anew, so a resumed run is exact.
    """

    EVERY = 5

    def __init__(self, steps: int) -> None:
        """For a training of `steps` steps."""
        super().__init__()
        self.steps = steps
        self.slow: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begin with the weights as they are."""
        self.slow = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Every fifth time: go back part of the way."""
        if (batch + 1) % self.EVERY:
            return
        progress = int(self.model.optimizer.iterations) / self.steps
        back = 0.95**self.EVERY * progress**3
        pairs = zip(self.slow, self.model.get_weights(), strict=True)
        self.slow = [back * slow + (1 - back) * fast for slow, fast in pairs]
        self.model.set_weights(self.slow)


# --- Training ------------------------------------------------------------------------------------


def compile_with(recipe: Recipe, model: keras.Model, steps: int) -> None:
    """Give `model` the recipe's loss and optimiser, whose learning rate runs over `steps`."""
    rising = round(0.23 * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.2 * recipe.peak_learning_rate,
        warmup_target=recipe.peak_learning_rate,
        warmup_steps=rising,
        decay_steps=steps - rising,
        alpha=0.02,
    )
    model.compile(
        FastShiftSGD(
            rate, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
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
    steps = config.epochs * -(-len(training.images) // recipe.batch_size)
    compile_with(recipe, model, steps)
    callbacks = [Lookahead(steps), run.checkpoints(model)]
    validated = (to_input(validation.images), validation.one_hot)
    small = recipe.small_epochs(config.epochs)
    for images, first, last in stages(training.images, small, config.epochs):
        first = max(first, run.first_epoch)
        if first >= last:  # done before the run was interrupted
            continue
        model.fit(
            AlternatingBatches(images, training.one_hot, recipe.batch_size, config.seed, first),
            validation_data=validated if len(validation.images) else None,
            epochs=last,
            initial_epoch=first,
            shuffle=False,  # the batches are shuffled, in an order that a resumed run repeats
            callbacks=callbacks,
            verbose=2 if config.smoke else "auto",
        )
