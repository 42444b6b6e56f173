"""MNIST as TP1 and TP2 use it: its parts, a model's input, the floors, a model's score."""

from __future__ import annotations

import numpy as np

import labkit

keras = labkit.lazy("keras")


def load(choice: labkit.DataChoice, smoke: bool, split: str) -> labkit.Data:
    """MNIST in three parts: x is (n, 28, 28) uint8, 0..255, y is (n,) uint8 labels.

    `split` is that of `validation_indices`; `smoke` keeps 512 training and 256 test images. Leaves
    with exit code 2 when `choice` is `real` and the real set can't be had.
    """
    images = labkit.load_mnist(choice)
    if smoke:
        images = images.head(512, 256)
    return images.split(*validation_indices(images.y_train, split))


def validation_indices(labels: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation images: the same for every seed.

    `last` is Keras' `validation_split=0.1`, which takes the end of the arrays; in MNIST these
    images are easier than the rest. `stratified` draws 10 % of each class at random.
    """
    if split == "last":
        border = int(len(labels) * 0.9)
        return np.arange(border), np.arange(border, len(labels))
    from sklearn.model_selection import train_test_split

    return tuple(
        train_test_split(np.arange(len(labels)), test_size=0.1, stratify=labels, random_state=0)
    )


def to_input(images: np.ndarray) -> np.ndarray:
    """Grey values 0..255, (n, 28, 28), to the models' input: (n, 784) float32 in 0..1."""
    return images.reshape(len(images), 784).astype(np.float32) / 255  # whole arrays, no loop


def floors(data: labkit.Data) -> dict[str, float]:
    """Test accuracies that a network must beat: the most frequent class, a linear model."""
    from sklearn.linear_model import LogisticRegression

    majority = np.bincount(data.train.y).argmax()
    linear = LogisticRegression(max_iter=200, tol=1e-3)
    linear.fit(to_input(data.train.x), data.train.y)
    return {
        "floor_majority": float(np.mean(data.test.y == majority)),
        "floor_logistic_regression": linear.score(to_input(data.test.x), data.test.y),
    }


def score(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """`loss_and_accuracy` of `model` on `inputs` (n, 784) in 0..1."""
    return loss_and_accuracy(model.predict(inputs, batch_size=500, verbose=0), labels)


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1 of `probabilities`, (n, 10)."""
    losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    return float(keras.ops.mean(losses)), float(accuracy)
