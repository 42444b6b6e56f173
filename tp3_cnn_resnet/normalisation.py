"""Batch normalisation: a fast layer, and a look at its weak spot, the moving averages.

A module of its own because it imports Keras.
"""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from labkit import figures

RECALIBRATION_IMAGES = 2000
"""Training images whose statistics replace the moving averages: enough for a precise mean."""


@keras.saving.register_keras_serializable("tp3_cnn_resnet")
class OnePassBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer through TensorFlow's single operation, forward and back.

    Keras computes mean, variance and scaling one after the other, in float32 also where all else
    is bfloat16. Weights, their order and inference are Keras', but the moving variance divides by
    n - 1 where Keras divides by n.
    """

    def call(
        self,
        inputs: keras.KerasTensor,
        training: bool | None = None,
        mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Normalise each channel of `inputs` (B, h, w, c)."""
        if not training:
            return super().call(inputs, training=False)
        ones = ops.ones_like(self.moving_mean)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else ones,
            offset=ops.cast(self.beta, "float32"),
            epsilon=self.epsilon,
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * batch)
        return outputs


class RecalibratedAccuracy(keras.callbacks.Callback):
    """Adds `val_accuracy_recalibrated` to each epoch: the same weights, other statistics.

    Batch normalisation trains with each batch's mean and variance and is tested with moving
    averages of them. Here both are taken from training images at once, with the weights as they
    are now ("precise batch norm"). Where this accuracy is high and the usual one low, the network
    has learnt and the averages have not followed.
    """

    def __init__(
        self, twin: keras.Model, training: np.ndarray, validation: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """`twin` is the same network built with momentum 0, whose averages are the last batch's.

        `training` (n, h, w, 3) and `validation` (images, one-hot labels) are network inputs.
        """
        super().__init__()
        self.twin, self.training = twin, training[:RECALIBRATION_IMAGES]
        self.images, self.labels = validation

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Take the weights, recalibrate the statistics, measure."""
        self.twin.set_weights(self.model.get_weights())
        self.twin(self.training, training=True)  # sets the averages, changes no weight
        probabilities = self.twin.predict(self.images, batch_size=500, verbose=0)
        right = probabilities.argmax(axis=1) == self.labels.argmax(axis=1)
        logs["val_accuracy_recalibrated"] = float(np.mean(right))


def batchnorm_lag(history: Mapping[str, list[float]]) -> dict[str, float]:
    """Where the moving averages misled most, in the second half of the training.

    The epoch (from 1), its validation accuracy, and that of the same weights with recalibrated
    statistics.
    """
    accuracy, recalibrated = history["val_accuracy"], history["val_accuracy_recalibrated"]
    late = range(len(accuracy) // 2, len(accuracy))
    worst = max(late, key=lambda epoch: recalibrated[epoch] - accuracy[epoch])
    return {
        "batchnorm_lag_epoch": worst + 1,
        "batchnorm_lag_validation_accuracy": accuracy[worst],
        "batchnorm_lag_validation_accuracy_recalibrated": recalibrated[worst],
    }


def lag_in_words(metrics: Mapping[str, float]) -> str:
    """What `batchnorm_lag` found, in a sentence."""
    return (
        f"Moving averages misled most in epoch {metrics['batchnorm_lag_epoch']:.0f}: validation "
        f"{metrics['batchnorm_lag_validation_accuracy']:.4f}, with recalibrated statistics "
        f"{metrics['batchnorm_lag_validation_accuracy_recalibrated']:.4f}."
    )


def recalibration_figure(history: Mapping[str, list[float]]) -> figures.Figure:
    """Validation accuracy of each epoch's weights, by moving averages and by recalibration."""
    figure, axis = figures.subplots(size=(7, 4))
    epochs = np.arange(1, len(history["val_accuracy"]) + 1)
    axis.plot(
        epochs, history["val_accuracy_recalibrated"], marker="o", label="recalibrated statistics"
    )
    axis.plot(epochs, history["val_accuracy"], marker="o", label="moving averages, as always")
    axis.set(xlabel="epoch", ylabel="validation accuracy", title="The same weights, twice")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return figure
