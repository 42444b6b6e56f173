"""Examine a trained CIFAR-10 network: how good, wrong where, looking where, how robust?

    python tp3_cnn_resnet/evaluate.py              # the last trained model
    python tp3_cnn_resnet/evaluate.py --run ID     # another one: MLflow run id or folder name
    python tp3_cnn_resnet/evaluate.py --robustness-images 10000    # slower, narrower intervals

Nothing is trained or chosen here. The report and its seven figures land in the run's folder and
beside the training in MLflow: errors, Grad-CAM (`grad_cam.py`), the first layer, and accuracy
under ten common corruptions (`corruptions.py`). About a minute on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import figures
from labkit.results import accuracy_interval
from tp3_cnn_resnet import grad_cam
from tp3_cnn_resnet.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from tp3_cnn_resnet.models import NUM_CLASSES, load, to_input

keras = labkit.lazy("keras")
sklearn_metrics = labkit.lazy("sklearn.metrics")

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SAMPLE_CLASSES = (
    "disc", "ring", "square", "frame", "cross", "triangle", "horizontal", "vertical", "checks",
    "dots",
)  # fmt: skip
"""The patterns of the built-in sample, which has no airplanes."""

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


def corruption_figure(image: np.ndarray, seed: int) -> figures.Figure:
    """`image` (h, w, 3) uint8 under every corruption: a row each, clean, then strength 1 to 5."""
    rows = [
        [image, *(corrupt(image[None], kind, strength, seed)[0] for strength in STRENGTHS)]
        for kind in CORRUPTIONS
    ]
    tiles = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    count, columns, height, width, _ = tiles.shape
    figure, axis = figures.subplots(size=(7.0, 0.88 * count + 0.5))
    axis.imshow(tiles.transpose(0, 2, 1, 3, 4).reshape(count * height, columns * width, 3))
    axis.set_yticks(height * (np.arange(count) + 0.5), labels=CORRUPTIONS)
    axis.set_xticks(width * (np.arange(columns) + 0.5), labels=["clean", *STRENGTHS])
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    return figure


def robustness_figure(clean: float, curves: dict[str, list[float]], images: int) -> figures.Figure:
    """Accuracy against strength, a panel for each corruption; 0 is the clean images'."""
    figure, axes = figures.subplots(2, 5, size=(12, 5.2))
    for axis, (kind, accuracies) in zip(axes.flat, curves.items(), strict=True):
        axis.plot((0, *STRENGTHS), [clean, *accuracies], marker="o", markersize=4)
        axis.axhline(clean, color="0.6", linestyle="--", linewidth=1)
        axis.axhline(1 / NUM_CLASSES, color="0.6", linestyle=":", linewidth=1)
        axis.set(ylim=(0, 1), title=kind, xticks=(0, *STRENGTHS))
    for axis in axes[1]:
        axis.set_xlabel("strength")
    figure.supylabel(f"accuracy on {images} test images", fontsize=10)
    figure.suptitle("Dashed: clean images. Dotted: guessing.", fontsize=9, color="0.3")
    return figure


def cam_figures(
    model: keras.Model,
    data: labkit.Images,
    probabilities: np.ndarray,
    errors: np.ndarray,
    names: Sequence[str],
) -> dict[str, figures.Figure]:
    """Grad-CAM of the first right image of each class, and of the errors (n,) by index.

    Right ones also at the resolution before the deepest, errors for both classes in question.
    """
    predicted, labels = probabilities.argmax(axis=1), data.y_test.astype(int)
    layers = grad_cam.feature_layers(model, to_input(data.x_test[0]))
    (earlier, earlier_side), (deepest, side) = list(layers.items())[-2:]

    def heats(index: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return grad_cam.grad_cam(model, to_input(data.x_test[index]), classes, deepest)

    found = {}
    right = np.flatnonzero(predicted == labels)
    first = right[np.unique(labels[right], return_index=True)[1]]
    if len(first):
        found["grad_cam"] = grad_cam.heat_figure(
            data.x_test[first],
            [f"{names[labels[i]]}\n{probabilities[i].max():.0%}, #{i}" for i in first],
            {
                f"Grad-CAM, {side}x{side}": heats(first, labels[first]),
                f"HiResCAM, {earlier_side}x{earlier_side}": grad_cam.hires_cam(
                    model, to_input(data.x_test[first]), labels[first], earlier
                ),
            },
        )
    if len(errors):
        found["grad_cam_errors"] = grad_cam.heat_figure(
            data.x_test[errors],
            [f"{names[labels[i]]}\nas {names[predicted[i]]}, #{i}" for i in errors],
            {
                "for the prediction": heats(errors, predicted[errors]),
                "for the truth": heats(errors, labels[errors]),
            },
        )
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run("tp3_cnn_resnet.cnn_classification", config.run)
    data = labkit.load_cifar10(config.data)
    if config.smoke or trained.config["smoke"]:
        data = data.head(512, 256)
    same_data = data.source == trained.state["data_source"]
    if not same_data:
        print(f"note: trained on {trained.state['data_source']}, examined on {data.source}")
    labkit.prepare(config.seed)
    model = load(trained.folder / "model.keras")
    names = SAMPLE_CLASSES if data.source == "sample" else CLASSES

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict(to_input(images), batch_size=500, verbose=0)

    name, parent = trained.state["name"], trained.state["run_id"] or ""
    with labkit.start_run(__file__, config, data.source, name, parent) as run:
        probabilities = predict(data.x_test)
        mirrored = (probabilities + predict(data.x_test[:, :, ::-1])) / 2
        predicted, labels = probabilities.argmax(axis=1), data.y_test
        right = predicted == labels
        low, high = accuracy_interval(int(right.sum()), len(labels))
        metrics = {
            "test_accuracy": float(right.mean()),
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_accuracy_mirrored": float(np.mean(mirrored.argmax(axis=1) == labels)),
        }
        if same_data:
            floors = ("floor_majority", "floor_ridge")
            metrics |= {floor: trained.metrics[floor] for floor in floors}
        classes = sklearn_metrics.classification_report(
            labels, predicted, labels=range(NUM_CLASSES), target_names=names, digits=4,
            zero_division=0,
        )  # fmt: skip

        counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(NUM_CLASSES))
        run.save_figure("confusion_matrix", figures.confusion_matrix(counts, names))
        wrong = np.flatnonzero(~right)
        worst = wrong[np.argsort(-probabilities[wrong].max(axis=1))][:25]
        titles = [
            f"{names[labels[i]]} taken for\n{names[predicted[i]]}, {probabilities[i].max():.0%}"
            f" sure, #{i}"
            for i in worst
        ]
        if len(worst):
            run.save_figure("most_confident_errors", figures.image_grid(data.x_test[worst], titles))
        for title, figure in cam_figures(model, data, probabilities, worst[:8], names).items():
            run.save_figure(title, figure)
        shown = data.x_test[SHOWN]
        channels = grad_cam.first_layer(model, to_input(shown))
        run.save_figure("first_layer", grad_cam.first_layer_figure(shown, *channels))
        run.save_figure("corruptions", corruption_figure(shown, config.seed))

        step = max(1, len(labels) // (16 if config.smoke else config.robustness_images))
        images, truth = data.x_test[::step], labels[::step]
        curves = {}
        for kind in CORRUPTIONS:
            worse = [corrupt(images, kind, strength, config.seed) for strength in STRENGTHS]
            predictions = predict(np.concatenate(worse)).argmax(axis=1).reshape(len(STRENGTHS), -1)
            curves[kind] = (predictions == truth).mean(axis=1).tolist()
            metrics[f"accuracy_{kind.replace(' ', '_')}"] = float(np.mean(curves[kind]))
        metrics["accuracy_clean"] = float(right[::step].mean())
        metrics["mean_corruption_accuracy"] = float(np.mean(list(curves.values())))
        run.save_figure(
            "robustness", robustness_figure(metrics["accuracy_clean"], curves, len(truth))
        )
        run.log_metrics(metrics)

        summary = (
            f"Test accuracy: {right.mean():.4f}, 95 % interval {low:.4f} to {high:.4f}, n ="
            f" {len(labels)} ({data.source})\n"
            f"  with mirror images averaged: {metrics['test_accuracy_mirrored']:.4f}\n"
        )
        for floor in (key for key in metrics if key.startswith("floor_")):
            summary += f"  floor, {floor.removeprefix('floor_')}: {metrics[floor]:.4f}\n"
        summary += (
            f"\nAccuracy on {len(truth)} images: clean {metrics['accuracy_clean']:.3f}, mean"
            f" over corruptions {metrics['mean_corruption_accuracy']:.3f}\n"
        )
        for kind, accuracies in curves.items():
            summary += f"  {kind}, strengths 1 to 5: "
            summary += ", ".join(f"{accuracy:.3f}" for accuracy in accuracies) + "\n"
        summary += "Corruptions of our own, not comparable with CIFAR-10-C.\n"
        print(f"\n{classes}\n{summary}")
        run.save_text("report.md", f"# {name}, examined\n\n```\n{classes}\n{summary}```\n")
    return metrics


if __name__ == "__main__":
    main()
