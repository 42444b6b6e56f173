"""Losses of a binary mask: `LOSSES["dice"]()` and so on; each gives one value per image.

`y_true` is (B, height, width, 1) of zeros and ones, or (B, depth, height, width, 1) for volumes;
`y_pred` holds probabilities in the same shape. Sums run over the pixels of one image, never over
the batch: flattened over a batch, one large object outweighs all small ones.
"""

import keras
from keras import ops

SMOOTH = 1.0
"""The hand-out's: keeps 0 / 0 away where mask and prediction are both empty."""


class ImageLoss(keras.losses.Loss):
    """What the losses share: float32, the same shape on both sides, the mean over images."""

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """One value per image, (B,). Raises `ValueError` where the shapes differ."""
        y_pred = ops.convert_to_tensor(y_pred, "float32")
        y_true = ops.cast(y_true, "float32")
        if len(y_true.shape) not in (4, 5) or y_true.shape[1:] != y_pred.shape[1:]:
            raise ValueError(
                f"masks and predictions must be (B, height, width, 1) both, or (B, depth, height, "
                f"width, 1), got {y_true.shape} and {y_pred.shape}"
            )
        return self.of_images(*(ops.reshape(y, (ops.shape(y)[0], -1)) for y in (y_true, y_pred)))


def _cross_entropy(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """-log of the probability of the truth, nats, and that probability; both for each pixel."""
    of_truth = y_true * y_pred + (1 - y_true) * (1 - y_pred)
    of_truth = ops.clip(of_truth, keras.config.epsilon(), 1.0)
    return -ops.log(of_truth), of_truth


def _soft_dice(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    both = ops.sum(y_true * y_pred, axis=1)
    sizes = ops.sum(y_true, axis=1) + ops.sum(y_pred, axis=1)
    return (2 * both + SMOOTH) / (sizes + SMOOTH)


@keras.saving.register_keras_serializable("tp4_losses")
class BinaryCrossEntropy(ImageLoss):
    """Mean over pixels of -log p(truth). For small targets, nearly all of it is background."""

    def of_images(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor):
        """(B, pixels) each to (B,) nats."""
        return ops.mean(_cross_entropy(y_true, y_pred)[0], axis=1)


@keras.saving.register_keras_serializable("tp4_losses")
class Dice(ImageLoss):
    """1 - soft Dice (Milletari et al., V-Net, 3DV 2016, with plain sums in the denominator)."""

    def of_images(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor):
        """(B,), 0 to 1."""
        return 1 - _soft_dice(y_true, y_pred)


@keras.saving.register_keras_serializable("tp4_losses")
class CrossEntropyAndDice(ImageLoss):
    """Their sum, nnU-Net's choice (Isensee et al., Nature Methods 2021)."""

    def of_images(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor):
        """(B,)."""
        entropy = ops.mean(_cross_entropy(y_true, y_pred)[0], axis=1)
        return entropy + 1 - _soft_dice(y_true, y_pred)


@keras.saving.register_keras_serializable("tp4_losses")
class Tversky(ImageLoss):
    """1 - Tversky index (Salehi et al., MLMI 2017): missed pixels may weigh more than false ones.

    With both weights 0.5 it is the Dice loss with twice the smoothing.
    """

    false_weight, missed_weight = 0.3, 0.7
    """The paper's best, for lesions."""

    def of_images(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor):
        """(B,), 0 to 1."""
        both = ops.sum(y_true * y_pred, axis=1)
        false = ops.sum((1 - y_true) * y_pred, axis=1)
        missed = ops.sum(y_true * (1 - y_pred), axis=1)
        weighted = self.false_weight * false + self.missed_weight * missed
        return 1 - (both + SMOOTH) / (both + weighted + SMOOTH)


@keras.saving.register_keras_serializable("tp4_losses")
class Focal(ImageLoss):
    """Cross-entropy that fades where the prediction is right (Lin et al., ICCV 2017, equation 5).

    Mean over pixels of -alpha_t (1 - p_t) ** gamma log p_t, with the paper's gamma and its alpha
    for the target.
    """

    gamma, alpha = 2.0, 0.25

    def of_images(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor):
        """(B,) nats."""
        entropy, of_truth = _cross_entropy(y_true, y_pred)
        weight = self.alpha * y_true + (1 - self.alpha) * (1 - y_true)
        return ops.mean(weight * (1 - of_truth) ** self.gamma * entropy, axis=1)


LOSSES: dict[str, type[ImageLoss]] = {
    "bce": BinaryCrossEntropy,
    "dice": Dice,
    "bce+dice": CrossEntropyAndDice,
    "tversky": Tversky,
    "focal": Focal,
}
"""What `--loss` takes; make a new one for each training."""
