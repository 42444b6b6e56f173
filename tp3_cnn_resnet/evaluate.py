"""How good is a trained CIFAR-10 network, wrong where, looking where, and how robust?

    python tp3_cnn_resnet/evaluate.py              # the last trained model
    python tp3_cnn_resnet/evaluate.py --run ID     # another one: MLflow run id or folder name
    python tp3_cnn_resnet/evaluate.py --robustness-images 10000    # slower, narrower intervals

It examines what `cnn_classification.py` or `fast_cnn.py` has trained; nothing is trained or chosen
here. The report and its seven figures land in the run's folder and beside the training in MLflow:
errors, Grad-CAM (`grad_cam.py`), the first layer, and accuracy under ten common corruptions
(`corruptions.py`). About a minute on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import Part, figures
from labkit.results import accuracy_interval
from tp3_cnn_resnet import corruptions, grad_cam
from tp3_cnn_resnet.cifar10 import CLASSES, NUM_CLASSES, SAMPLE_CLASSES, load, score, table
from tp3_cnn_resnet.models import load_model, predict, to_input

keras = labkit.lazy("keras")
sklearn_metrics = labkit.lazy("sklearn.metrics")

EXAMINES = ("tp3_cnn_resnet.cnn_classification", "tp3_cnn_resnet.fast_cnn")

SHOWN = 1
"""The test image on which corruptions and the first layer are shown: a ship in CIFAR-10."""


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: real CIFAR-10 or, without it, a sample; real: real or an error; sample: patterns."""
    robustness_images: int = 2000
    """Test images, evenly spaced, that are corrupted; 1 to all. Fewer are faster."""
    seed: int = 0
    """Seed of the corruptions."""
    smoke: bool = False
    """The first 256 test images only, 16 of them corrupted."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, robustness_images=1)


# --- Errors, and where the network looks ----------------------------------------------------------


def most_confident_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of the wrong predictions, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1))]


def error_figures(
    test: Part, probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, figures.Figure]:
    """The confusion matrix, rows the truth, and the 25 most confident errors, if there are any."""
    predicted, labels = probabilities.argmax(axis=1), test.y
    counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(NUM_CLASSES))
    found = {"confusion_matrix": figures.confusion_matrix(counts, names)}
    worst = most_confident_errors(probabilities, labels)[:25]
    titles = [
        f"{names[labels[i]]} taken for\n{names[predicted[i]]}, {probabilities[i].max():.0%}"
        f" sure, #{i}"
        for i in worst
    ]
    if titles:
        found["most_confident_errors"] = figures.image_grid(test.x[worst], titles)
    return found


def cam_figures(
    model: keras.Model, test: Part, probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, figures.Figure]:
    """Grad-CAM of the first right image of each class, and of the eight most confident errors.

    Right ones also at the resolution before the deepest, errors for both classes in question.
    """
    predicted, labels = probabilities.argmax(axis=1), test.y.astype(int)
    layers = grad_cam.feature_layers(model, to_input(test.x[0]))
    (earlier, earlier_side), (deepest, side) = list(layers.items())[-2:]

    def heats(index: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return grad_cam.grad_cam(model, to_input(test.x[index]), classes, deepest)

    found = {}
    right = np.flatnonzero(predicted == labels)
    first = right[np.unique(labels[right], return_index=True)[1]]
    if len(first):
        found["grad_cam"] = grad_cam.heat_figure(
            test.x[first],
            [f"{names[labels[i]]}\n{probabilities[i].max():.0%}, #{i}" for i in first],
            {
                f"Grad-CAM, {side}x{side}": heats(first, labels[first]),
                f"HiResCAM, {earlier_side}x{earlier_side}": grad_cam.hires_cam(
                    model, to_input(test.x[first]), labels[first], earlier
                ),
            },
        )
    errors = most_confident_errors(probabilities, labels)[:8]
    if len(errors):
        found["grad_cam_errors"] = grad_cam.heat_figure(
            test.x[errors],
            [f"{names[labels[i]]}\nas {names[predicted[i]]}, #{i}" for i in errors],
            {
                "for the prediction": heats(errors, predicted[errors]),
                "for the truth": heats(errors, labels[errors]),
            },
        )
    return found


# --- Figures in numbers ---------------------------------------------------------------------------


def accuracies(model: keras.Model, test: Part, probabilities: np.ndarray) -> dict[str, float]:
    """Test accuracy with its 95 % interval, and that of images and mirror images averaged."""
    right = probabilities.argmax(axis=1) == test.y
    low, high = accuracy_interval(int(right.sum()), len(right))
    return {
        "test_accuracy": right.mean(),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_accuracy_mirrored": score(model, test, mirrored=True)[1],
    }


def robustness(model: keras.Model, part: Part, seed: int) -> dict[str, list[float]]:
    """Accuracies on `part` under each corruption, at strengths 1 to 5."""
    curves = {}
    for kind in corruptions.CORRUPTIONS:
        worse = [corruptions.corrupt(part.x, kind, s, seed) for s in corruptions.STRENGTHS]
        predicted = predict(model, np.concatenate(worse)).argmax(axis=1)
        curves[kind] = (predicted.reshape(len(worse), -1) == part.y).mean(axis=1).tolist()
    return curves


def in_words(
    metrics: Mapping[str, float], curves: Mapping[str, list[float]], classes: str, images: int
) -> str:
    """The report: accuracies beside their floors, the figures of each class, robustness."""
    low, high = metrics["test_accuracy_low"], metrics["test_accuracy_high"]
    lines = [
        f"95 % interval of the test accuracy: {low:.4f} to {high:.4f}.\n\n```\n{classes}```\n",
        f"Accuracy on {images} images: clean {metrics['accuracy_clean']:.3f}, mean over "
        f"corruptions {metrics['mean_corruption_accuracy']:.3f}. By strength, from 1 to 5:\n",
        *(f"- {kind}: {', '.join(f'{a:.3f}' for a in curve)}" for kind, curve in curves.items()),
        "\nCorruptions of our own, not comparable with CIFAR-10-C.",
    ]
    return f"{table(metrics)}\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    data = load(config.data, config.smoke or trained.config["smoke"])
    labkit.prepare(config.seed)
    model, test = load_model(trained.folder / "model.keras"), data.test
    names = SAMPLE_CLASSES if data.source == "sample" else CLASSES
    with labkit.examination(__file__, config, trained, data.source) as run:
        probabilities = predict(model, test.x)
        right = probabilities.argmax(axis=1) == test.y
        step = max(1, len(test) // (16 if config.smoke else config.robustness_images))
        some, clean = Part(test.x[::step], test.y[::step]), float(right[::step].mean())
        curves = robustness(model, some, config.seed)

        run.log_metrics(accuracies(model, test, probabilities))
        if data.source == trained.data_source:
            floors = ("floor_majority", "floor_ridge")
            run.log_metrics({floor: trained.metrics[floor] for floor in floors})
        means = {f"accuracy_{k.replace(' ', '_')}": np.mean(v) for k, v in curves.items()}
        mean = np.mean(list(curves.values()))
        run.log_metrics(means | {"accuracy_clean": clean, "mean_corruption_accuracy": mean})

        drawn = error_figures(test, probabilities, names)
        drawn |= cam_figures(model, test, probabilities, names)
        drawn["first_layer"] = grad_cam.first_layer_figure(model, test.x[SHOWN])
        drawn["corruptions"] = corruptions.example_figure(test.x[SHOWN], config.seed)
        drawn["robustness"] = corruptions.robustness_figure(clean, curves, len(some))
        for name, figure in drawn.items():
            run.save_figure(name, figure)
        classes = sklearn_metrics.classification_report(
            test.y, probabilities.argmax(axis=1), labels=range(NUM_CLASSES), target_names=names,
            digits=4, zero_division=0,
        )  # fmt: skip
        text = in_words(run.metrics, curves, classes, len(some))
        print(f"\n{text}")
        run.save_report(f"{trained.state['name']}, examined", text)
    return run.metrics


if __name__ == "__main__":
    main()
