"""The task's networks and losses: a U-Net for slices of MRI, a residual network for pictures.

Both end in logits, in float32: losses are computed from them, as the sigmoid of 17 is exactly 1 in
float32 and no gradient would come back from a probability that is altogether wrong.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from tp6_real_world.brain_tumor.metrics import overlap

DEPTH = 3
"""Poolings of the U-Net: the side of a slice must be a multiple of 2 ** DEPTH."""
SMOOTH = 1.0
"""Pixels added above and below in soft Dice, so that an empty slice left empty costs nothing."""


# --- Slices to masks -----------------------------------------------------------------------------


def conv_block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Twice 3x3 convolution, batch normalisation, ReLU; the size stays.

    The moving averages have a momentum of 0.9: with Keras' 0.99 they lag behind for several epochs
    of a training as short as this one, and so would every validation figure.
    """
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Activation("relu")(x)
    return x


def build_unet(size: int, channels: int, width: int, depth: int = DEPTH) -> keras.Model:
    """Slices (B, size, size, channels) to logits of tumour (B, size, size, 1).

    Ronneberger, Fischer and Brox (MICCAI 2015): `width` filters at full resolution, twice as many
    after each of `depth` poolings; the skips hand the decoder the detail that pooling dropped. The
    shapes below are those of 128 pixels and 16 filters.
    """
    inputs = x = keras.Input((size, size, channels))
    passed = []
    for level in range(depth):
        x = conv_block(x, width << level)  # (B, 128, 128, 16), (B, 64, 64, 32), (B, 32, 32, 64)
        passed.append(x)
        x = layers.MaxPooling2D(2)(x)  # half the size
    x = conv_block(x, width << depth)  # (B, 16, 16, 128)
    x = layers.SpatialDropout2D(0.1)(x)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(width << level, 2, strides=2)(x)
        x = layers.Concatenate()([x, passed[level]])
        x = conv_block(x, width << level)  # (B, 32, 32, 64), (B, 64, 64, 32), (B, 128, 128, 16)
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, 128, 128, 1)
    return keras.Model(inputs, logits, name=f"unet{width}")


@keras.saving.register_keras_serializable("brain_tumor")
def cross_entropy(y_true: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over pixels of -log p(truth), nats: (B, h, w, 1) both, to (B,).

    98 % of an MRI slice's pixels are background, and so is 98 % of this sum.
    """
    y_true = ops.cast(y_true, "float32")
    log_of_truth = ops.log_sigmoid((2 * y_true - 1) * ops.cast(logits, "float32"))
    return ops.mean(-log_of_truth, axis=(1, 2, 3))


@keras.saving.register_keras_serializable("brain_tumor")
def dice_loss(y_true: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """1 - soft Dice of each slice (Milletari et al., 3DV 2016): (B, h, w, 1) both, to (B,) in 0..1.

    Sums run over one slice, never over the batch: there a large tumour would outweigh small ones.
    """
    y_true = ops.cast(y_true, "float32")
    probability = ops.sigmoid(ops.cast(logits, "float32"))
    both = ops.sum(y_true * probability, axis=(1, 2, 3))
    sizes = ops.sum(y_true, axis=(1, 2, 3)) + ops.sum(probability, axis=(1, 2, 3))
    return 1 - (2 * both + SMOOTH) / (sizes + SMOOTH)


@keras.saving.register_keras_serializable("brain_tumor")
def cross_entropy_and_dice(
    y_true: keras.KerasTensor, logits: keras.KerasTensor
) -> keras.KerasTensor:
    """Their sum, nnU-Net's choice (Isensee et al., Nature Methods 2021): (B,)."""
    return cross_entropy(y_true, logits) + dice_loss(y_true, logits)


LOSSES = {"bce": cross_entropy, "dice": dice_loss, "bce+dice": cross_entropy_and_dice}
"""What `--loss` takes."""


# --- Pictures to one number ----------------------------------------------------------------------


def residual_block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Two 3x3 convolutions beside a 1x1 one (He et al., CVPR 2016); half the size."""
    shortcut = layers.Conv2D(filters, 1, strides=2, use_bias=False)(x)
    for strides in (2, 1):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        if strides == 2:
            x = layers.Activation("relu")(x)
    return layers.Activation("relu")(layers.Add()([x, shortcut]))


def build_classifier(size: int, width: int, dropout: float, blocks: int = 3) -> keras.Model:
    """Pictures (B, size, size, 1) to the logit of "there is a tumour", (B, 1).

    The average over all places and the dropout keep it small: some 200 pictures can't pay for a
    dense layer on top of a map. The shapes below are those of 96 pixels and 16 filters.
    """
    inputs = keras.Input((size, size, 1))
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(
        inputs
    )  # (B, 48, 48, 16)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Activation("relu")(x)
    for block in range(blocks):
        x = residual_block(x, width << block)  # (B, 24, 24, 16), (B, 12, 12, 32), (B, 6, 6, 64)
    x = layers.GlobalAveragePooling2D()(x)  # (B, 64)
    x = layers.Dropout(dropout)(x)
    logits = layers.Dense(1, dtype="float32", name="logits")(x)  # (B, 1)
    return keras.Model(inputs, logits, name=f"residual{width}")


# --- While training ------------------------------------------------------------------------------


class PatientDice(keras.callbacks.Callback):
    """Adds to each epoch's logs what is measured of validation slices: `val_loss`, `val_dice`.

    `val_dice` is the mean over patients at probability 0.5, the measure that is reported in the
    end. Keras' own validation has no patients, only batches.
    """

    def __init__(self, x: np.ndarray, masks: np.ndarray, groups: np.ndarray, loss: str) -> None:
        """Inputs (n, h, w, c), masks (n, h, w) bool, patients (n,) int, a name in `LOSSES`."""
        super().__init__()
        self.x, self.masks, self.groups, self.loss = x, masks, groups, LOSSES[loss]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Predict the validation slices; logs are shared with the callbacks that follow."""
        logits = self.model.predict(self.x, batch_size=32, verbose=0)
        target = self.masks[..., None].astype("float32")
        dice, _ = overlap(logits[..., 0] > 0, self.masks, self.groups)
        logs["val_loss"] = float(ops.mean(self.loss(target, logits)))
        logs["val_dice"] = float(np.nanmean(dice))
