"""How good is a trained digit classifier, where is it wrong, how sure, how robust?

    python tp1_mnist_api/evaluate.py              # the last trained model
    python tp1_mnist_api/evaluate.py --run ID     # another one: MLflow run id or folder name

Nothing is trained or chosen here. The report and its four figures land in the run's folder and
beside the training in MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import figures
from labkit.results import accuracy_interval, beside_floors
from tp1_mnist_api.digits import load, loss_and_accuracy, to_input

keras = labkit.lazy("keras")
sklearn_metrics = labkit.lazy("sklearn.metrics")

EXAMINES = ("tp1_mnist_api.train_model",)
CONFIDENCE_BINS = 15
DISTORTIONS = {
    "shift (pixels)": (0, 1, 2, 3, 4, 5, 6),
    "rotation (degrees)": (0, 10, 20, 30, 40, 50, 60),
    "noise (standard deviation)": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
}


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""
    robustness_images: int = 2000
    """Test images, evenly spaced, that are distorted; 1 to all. Fewer are faster."""
    seed: int = 0
    """Seed of the noise."""
    smoke: bool = False
    """The first 256 test images only, as in training with --smoke."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, robustness_images=1)


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = CONFIDENCE_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and count of each bin of confidence, each (bins,).

    `probabilities` is (n, classes), `labels` (n,). Bins have equal width in (0, 1], as in Guo et
    al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2; empty ones hold zeros.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    safe = np.maximum(count, 1)
    mean_confidence = np.bincount(index, confidence, bins) / safe
    accuracy = np.bincount(index, correct, bins) / safe
    return mean_confidence, accuracy, count


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean gap between confidence and accuracy, weighted by bin, 0..1 (Guo et al., equation 3)."""
    confidence, accuracy, count = reliability(probabilities, labels)
    return float(np.sum(count * np.abs(confidence - accuracy)) / count.sum())


def distort(images: np.ndarray, kind: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """`images` (n, 28, 28) in 0..255, shifted right, rotated or noisy by `strength`: float32."""
    from scipy import ndimage

    images = images.astype(np.float32)
    if kind.startswith("shift"):
        return ndimage.shift(images, (0, 0, strength), order=1)
    if kind.startswith("rotation"):
        return ndimage.rotate(images, strength, axes=(1, 2), reshape=False, order=1)
    noisy = images + rng.normal(0, 255 * strength, images.shape).astype(np.float32)
    return np.clip(noisy, 0, 255)


def evenly_spaced(part: labkit.Part, most: int) -> labkit.Part:
    """About `most` examples of `part`, or all of them."""
    step = max(1, len(part) // most)
    return labkit.Part(part.x[::step], part.y[::step])


def robustness(predict: Callable, part: labkit.Part, seed: int) -> dict[str, list[float]]:
    """Accuracy of `predict`, (n, 28, 28) to (n, 10), at each strength of each distortion."""
    rng = np.random.default_rng(seed)
    return {
        kind: [
            float(np.mean(predict(distort(part.x, kind, strength, rng)).argmax(axis=1) == part.y))
            for strength in strengths
        ]
        for kind, strengths in DISTORTIONS.items()
    }


def nearest_neighbours(data: labkit.Data) -> float:
    """Test accuracy of 3 nearest neighbours on pixels: the floor that costs no training."""
    from sklearn.neighbors import KNeighborsClassifier

    known = to_input(np.concatenate([data.train.x, data.validation.x]))
    model = KNeighborsClassifier(3, algorithm="brute")
    model.fit(known, np.concatenate([data.train.y, data.validation.y]))
    return float(model.score(to_input(data.test.x), data.test.y))


def errors_figure(test: labkit.Part, probabilities: np.ndarray) -> figures.Figure | None:
    """The 25 errors of which the model was surest; None if it makes no error."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != test.y)
    worst = wrong[np.argsort(-confidence[wrong])][:25]
    titles = [
        f"{test.y[i]} taken for {predicted[i]}\n{confidence[i]:.0%} sure, #{i}" for i in worst
    ]
    return figures.image_grid(test.x[worst], titles) if len(worst) else None


def reliability_figure(probabilities: np.ndarray, labels: np.ndarray) -> figures.Figure:
    """Accuracy against confidence, above the number of images in each bin."""
    confidence, accuracy, count = reliability(probabilities, labels)
    filled = count > 0
    figure, (top, bottom) = figures.subplots(2, 1, size=(5.5, 6))
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    top.plot(confidence[filled], accuracy[filled], marker="o", label="model")
    top.set(xlabel="confidence", ylabel="accuracy", title="Reliability", xlim=(0, 1.02))
    top.legend()
    edges = np.linspace(0, 1, len(count) + 1)
    bottom.bar(edges[:-1], count, width=np.diff(edges), align="edge", edgecolor="white")
    bottom.set(xlabel="confidence", ylabel="images", yscale="log", xlim=(0, 1.02))
    return figure


def robustness_figure(curves: dict[str, list[float]], images: int) -> figures.Figure:
    """Accuracy against the strength of each distortion."""
    figure, axes = figures.subplots(1, len(curves), size=(12, 3.6))
    for axis, (kind, accuracies) in zip(axes, curves.items(), strict=True):
        axis.plot(DISTORTIONS[kind], accuracies, marker="o")
        axis.set(xlabel=kind, ylim=(0, 1.03), title=kind.split()[0].capitalize())
    axes[0].set_ylabel(f"accuracy on {images} test images")
    return figure


def summary(
    run: labkit.Run, labels: np.ndarray, predicted: np.ndarray, curves: dict[str, list[float]]
) -> str:
    """What was found, in Markdown: beside the floor, for each class, for each distortion."""
    shown = {
        "test_accuracy": f"test accuracy, n = {len(labels)}",
        "test_accuracy_low": "95 % interval from",
        "test_accuracy_high": "to",
        "expected_calibration_error": f"calibration error (ECE, {CONFIDENCE_BINS} bins)",
    }
    classes = sklearn_metrics.classification_report(labels, predicted, digits=4, zero_division=0)
    lines = [beside_floors(run.metrics, shown), f"```\n{classes}```\n"]
    for kind, accuracies in curves.items():
        pairs = zip(DISTORTIONS[kind], accuracies, strict=True)
        lines.append(f"- {kind}: " + ", ".join(f"{s:g}: {a:.3f}" for s, a in pairs))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    # The floor knows all training images; `last` leaves them in MNIST's own order.
    data = load(config.data, config.smoke or trained.config["smoke"], "last")
    labkit.prepare(config.seed)
    model = labkit.load_model(trained.folder / "model.keras")

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict(to_input(images), batch_size=500, verbose=0)

    with labkit.examination(__file__, config, trained, data.source) as run:
        labels, probabilities = data.test.y, predict(data.test.x)
        predicted = probabilities.argmax(axis=1)
        loss, accuracy = loss_and_accuracy(probabilities, labels)
        low, high = accuracy_interval(int(np.sum(predicted == labels)), len(labels))
        some = evenly_spaced(data.test, config.robustness_images)
        curves = robustness(predict, some, config.seed)
        metrics = {
            "test_accuracy": accuracy,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_loss": loss,
            "expected_calibration_error": expected_calibration_error(probabilities, labels),
            "floor_nearest_neighbours": nearest_neighbours(data),
        }
        for kind, accuracies in curves.items():
            metrics[f"accuracy_{kind.split()[0]}_{DISTORTIONS[kind][-1]}"] = accuracies[-1]
        run.log_metrics(metrics)
        counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(10))
        run.save_figure("confusion_matrix", figures.confusion_matrix(counts, "0123456789"))
        if errors := errors_figure(data.test, probabilities):
            run.save_figure("most_confident_errors", errors)
        run.save_figure("reliability", reliability_figure(probabilities, labels))
        run.save_figure("robustness", robustness_figure(curves, len(some)))
        text = summary(run, labels, predicted, curves)
        print(text)
        run.save_report(f"{trained.state['name']}, examined", text)
    return run.metrics


if __name__ == "__main__":
    main()
