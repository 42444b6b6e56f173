"""Losses of a binary mask: `LOSSES["dice"]()` and so on; each gives one value per image.

`y_true` is (B, height, width, 1) of zeros and ones, or (B, depth, height, width, 1) for volumes;
`y_pred` holds probabilities in the same shape, or with `from_logits=True` what goes into their
sigmoid. Sums run over the pixels of one image, never over the batch: flattened over a batch, one
large object outweighs all small ones.

Networks are trained with logits. In float32 the sigmoid of 17 is exactly 1: of a probability that
is altogether wrong no gradient would come back, where cross-entropy's should be the largest.
"""

import keras
from keras import ops

SMOOTH = 1.0
"""The hand-out's: keeps 0 / 0 away where mask and prediction are both empty."""


class ImageLoss(keras.losses.Loss):
    """What the losses share: float32, the same shape on both sides, the mean over images."""

    def __init__(self, from_logits: bool = False, **settings) -> None:
        """Whether predictions are logits, or probabilities."""
        super().__init__(**settings)
        self.from_logits = from_logits

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """One value per image, (B,). Raises `ValueError` where the shapes differ."""
        y_pred = ops.convert_to_tensor(y_pred, "float32")
        y_true = ops.cast(y_true, "float32")
        if len(y_true.shape) not in (4, 5) or y_true.shape[1:] != y_pred.shape[1:]:
            raise ValueError(
                f"masks and predictions must be (B, height, width, 1) both, or (B, depth, height, "
                f"width, 1), got {y_true.shape} and {y_pred.shape}"
            )
        y_true, y_pred = (ops.reshape(y, (ops.shape(y)[0], -1)) for y in (y_true, y_pred))
        if self.from_logits:
            log_of_truth = ops.log_sigmoid((2 * y_true - 1) * y_pred)
            return self.of_images(y_true, ops.sigmoid(y_pred), log_of_truth)
        of_truth = y_true * y_pred + (1 - y_true) * (1 - y_pred)
        log_of_truth = ops.log(ops.clip(of_truth, keras.config.epsilon(), 1.0))
        return self.of_images(y_true, y_pred, log_of_truth)

    def get_config(self) -> dict:
        """What predictions are, for saving."""
        return super().get_config() | {"from_logits": self.from_logits}


def _soft_dice(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    both = ops.sum(y_true * y_pred, axis=1)
    sizes = ops.sum(y_true, axis=1) + ops.sum(y_pred, axis=1)
    return (2 * both + SMOOTH) / (sizes + SMOOTH)


@keras.saving.register_keras_serializable("tp4_losses")
class BinaryCrossEntropy(ImageLoss):
    """Mean over pixels of -log p(truth). For small targets, nearly all of it is background."""

    def of_images(self, y_true, probability, log_of_truth):
        """(B, pixels) each to (B,) nats; `log_of_truth` is the log of the truth's probability."""
        return ops.mean(-log_of_truth, axis=1)


@keras.saving.register_keras_serializable("tp4_losses")
class Dice(ImageLoss):
    """1 - soft Dice (Milletari et al., V-Net, 3DV 2016, with plain sums in the denominator)."""

    def of_images(self, y_true, probability, log_of_truth):
        """(B,), 0 to 1."""
        return 1 - _soft_dice(y_true, probability)


@keras.saving.register_keras_serializable("tp4_losses")
class CrossEntropyAndDice(ImageLoss):
    """Their sum, nnU-Net's choice (Isensee et al., Nature Methods 2021)."""

    def of_images(self, y_true, probability, log_of_truth):
        """(B,)."""
        return ops.mean(-log_of_truth, axis=1) + 1 - _soft_dice(y_true, probability)


@keras.saving.register_keras_serializable("tp4_losses")
class Tversky(ImageLoss):
    """1 - Tversky index (Salehi et al., MLMI 2017): missed pixels may weigh more than false ones.

    With both weights 0.5 it is the Dice loss with twice the smoothing.
    """

    false_weight, missed_weight = 0.3, 0.7
    """The paper's best, for lesions."""

    def of_images(self, y_true, probability, log_of_truth):
        """(B,), 0 to 1."""
        both = ops.sum(y_true * probability, axis=1)
        false = ops.sum((1 - y_true) * probability, axis=1)
        missed = ops.sum(y_true * (1 - probability), axis=1)
        weighted = self.false_weight * false + self.missed_weight * missed
        return 1 - (both + SMOOTH) / (both + weighted + SMOOTH)


@keras.saving.register_keras_serializable("tp4_losses")
class Focal(ImageLoss):
    """Cross-entropy that fades where the prediction is right (Lin et al., ICCV 2017, equation 5).

    Mean over pixels of -alpha_t (1 - p_t) ** gamma log p_t, with the paper's gamma and its alpha
    for the target: at 0.25 a target's pixel weighs a third of one of the background. In the paper's
    detectors that makes up for the fading, which the rare class suffers less.
    """

    gamma, alpha = 2.0, 0.25

    def of_images(self, y_true, probability, log_of_truth):
        """(B,) nats."""
        wrong = 1 - ops.exp(log_of_truth)
        weight = self.alpha * y_true + (1 - self.alpha) * (1 - y_true)
        return ops.mean(-weight * wrong**self.gamma * log_of_truth, axis=1)


@keras.saving.register_keras_serializable("tp4_losses")
class FocalForTargets(Focal):
    """The focal loss with the weights the other way round: a target's pixel counts three times."""

    alpha = 0.75


LOSSES: dict[str, type[ImageLoss]] = {
    "bce": BinaryCrossEntropy,
    "dice": Dice,
    "bce+dice": CrossEntropyAndDice,
    "tversky": Tversky,
    "focal": Focal,
    "focal75": FocalForTargets,
}
"""What `--loss` takes; make a new one for each training."""
