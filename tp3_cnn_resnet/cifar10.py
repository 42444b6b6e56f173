"""CIFAR-10 as its trainings take it: three parts, harmless changes, floors, how to measure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import labkit
from labkit import Data, Part
from labkit.results import beside_floors
from tp3_cnn_resnet.models import predict, to_input

keras = labkit.lazy("keras")

INPUT_SHAPE, NUM_CLASSES = (32, 32, 3), 10
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SAMPLE_CLASSES = (
    "disc", "ring", "square", "frame", "cross", "triangle", "horizontal", "vertical", "checks",
    "dots",
)  # fmt: skip
"""The patterns of the built-in sample, which has no airplanes."""


def load(choice: labkit.DataChoice, smoke: bool, validation_share: float = 0.1) -> Data:
    """Images (n, 32, 32, 3) uint8 and labels 0..9 for training, validation and test.

    The last `validation_share` of the training images validate, for every seed alike; 0.1 is the
    hand-out's `validation_split`, and their order is random. A smoke run has 512 training and
    validation images, and 256 test images at most.
    """
    images = labkit.load_cifar10(choice)
    images = images.head(512, 256) if smoke else images
    border = round(len(images.x_train) * (1 - validation_share))
    return images.split(slice(0, border), slice(border, None))


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Labels (n,) as (n, 10) float32, 1 at the class: what categorical cross-entropy takes."""
    return np.eye(NUM_CLASSES, dtype=np.float32)[labels]


def translated(images: np.ndarray, rng: np.random.Generator, reach: int) -> np.ndarray:
    """`images` (n, h, w, c), each moved by -reach..reach pixels; the border is mirrored."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    top, left = rng.integers(0, 2 * reach + 1, (2, count, 1, 1))
    rows, columns = top + np.arange(height)[:, None], left + np.arange(width)
    return padded[np.arange(count)[:, None, None], rows, columns]


def mirrored(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`images` (n, h, w, c), those `chosen` (n,) bool with left and right exchanged."""
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def floors(training: Part, test: Part) -> dict[str, float]:
    """Test accuracies that a network must beat: the most frequent class, ridge regression."""
    from sklearn.linear_model import RidgeClassifier

    majority = np.bincount(training.y).argmax()
    linear = RidgeClassifier(alpha=100.0)
    linear.fit(to_input(training.x).reshape(len(training), -1), training.y)
    return {
        "floor_majority": float(np.mean(test.y == majority)),
        "floor_ridge": linear.score(to_input(test.x).reshape(len(test), -1), test.y),
    }


def score(model: keras.Model, part: Part, mirrored: bool = False) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1 of `model` on `part`; see `predict`."""
    probabilities = predict(model, part.x, mirrored)
    losses = keras.losses.sparse_categorical_crossentropy(part.y, probabilities)
    accuracy = np.mean(probabilities.argmax(axis=1) == part.y)
    return float(keras.ops.mean(losses)), float(accuracy)


def measure(model: keras.Model, data: Data) -> dict[str, float]:
    """Loss and accuracy of `model` on each part, on mirrored test images, and the floors.

    Of the training images the first 10,000. There may be no validation images.
    """
    some = Part(data.train.x[:10000], data.train.y[:10000])
    metrics = {}
    for name, part in (("train", some), ("validation", data.validation), ("test", data.test)):
        if len(part):
            metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = score(model, part)
    metrics["test_accuracy_mirrored"] = score(model, data.test, mirrored=True)[1]
    metrics["parameters"] = model.count_params()
    return metrics | floors(data.train, data.test)


def table(metrics: Mapping[str, float]) -> str:
    """The accuracies beside their floors, as Markdown."""
    shown = {
        "test_accuracy": "test accuracy",
        "test_accuracy_mirrored": "mirror images averaged",
        "test_accuracy_last_epoch": "last epoch",
        "validation_accuracy": "validation",
    }
    return beside_floors(metrics, shown)
