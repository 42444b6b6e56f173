"""What does a segmentation network give out, and what do skip connections do for its contours?

    python tp3_cnn_resnet/segmentation_demo.py
    python tp3_cnn_resnet/segmentation_demo.py --smoke    # everything once, in seconds

Two small encoder-decoders learn the class of each pixel: (48, 48, 3) images to (48, 48, 4)
probabilities. They have the same layers and the same number of weights; one adds the encoder's
maps to the decoder's of the same size, the other has only what passed through 6x6 maps. About a
minute on two cores. TP4 goes into depth with the U-Net (Ronneberger et al., MICCAI 2015), which
concatenates where this one adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.models import to_input
from tp3_cnn_resnet.shapes import CLASSES, SIZE, Scenes, colour_distance, scenes

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
ndimage = labkit.lazy("scipy.ndimage")

NETWORKS = ("without_skip", "with_skip")
WIDTHS = (8, 16, 48)
BATCH_SIZE = 16


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    epochs: int = 8
    """Passes over the 2,000 training images, 1 or more."""
    seed: int = 0
    """Seed of the weights and the order; never of the images."""
    data: labkit.DataChoice = "auto"
    """The images are generated: auto and sample are the same, real is refused."""
    smoke: bool = False
    """One epoch on 64 images, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings and code."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seed=0)
        if self.data == "real":
            raise ValueError("--data real: these images are generated, there is no real set")


# --- Networks ------------------------------------------------------------------------------------


def convolve(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """3x3 convolution, batch normalisation, ReLU: the size stays."""
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    return keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.9)(x))


def probabilities_of(inputs: keras.KerasTensor, skip: bool) -> keras.KerasTensor:
    """Encoder and decoder: (B, 48, 48, 3) images to (B, 48, 48, 4) probabilities."""
    x, passed = inputs, []
    for width in WIDTHS:
        x = convolve(x, width)  # (B, 48, 48, 8), (B, 24, 24, 16), (B, 12, 12, 48)
        passed.append(x)
        x = keras.layers.MaxPooling2D()(x)
    x = convolve(x, WIDTHS[-1])  # (B, 6, 6, 48)
    for encoded in reversed(passed):
        x = keras.layers.UpSampling2D(interpolation="bilinear")(x)  # twice the size
        x = convolve(x, encoded.shape[-1])  # (B, 12, 12, 48), (B, 24, 24, 16), (B, 48, 48, 8)
        if skip:
            x = keras.layers.Add()([x, encoded])
        x = convolve(x, encoded.shape[-1])
    return keras.layers.Conv2D(1 + len(CLASSES), 1, activation="softmax")(x)  # one vector a pixel


def build() -> keras.Model:
    """Both networks side by side, sharing nothing: (B, 48, 48, 2, 4) probabilities.

    One `fit()` then trains both on the same batches. Their losses are added and Adam scales each
    weight's step by itself, so neither feels the other.
    """
    inputs = keras.Input((SIZE, SIZE, 3))
    both = [probabilities_of(inputs, name == "with_skip") for name in NETWORKS]
    return keras.Model(inputs, keras.ops.stack(both, axis=-2))


def train(model: keras.Model, config: Config, training: Scenes, validation: Scenes, run) -> None:
    """Fit both by the mean cross-entropy of all pixels; the rate falls to zero along a cosine."""
    steps = config.epochs * -(-len(training.images) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.004, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            training.images, twice(training.masks), BATCH_SIZE, config.seed, run.first_epoch,
            lambda images, rng: to_input(images),
        ),
        validation_data=(to_input(validation.images), twice(validation.masks)),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip


def twice(masks: np.ndarray) -> np.ndarray:
    """(n, h, w) to (n, h, w, 2): both networks have the same truth."""
    return np.repeat(masks[..., None], 2, axis=-1)


# --- How good? -----------------------------------------------------------------------------------


def class_iou(predicted: np.ndarray, truth: np.ndarray, value: int) -> float:
    """Pixels that both call `value` over pixels that either does, of all images together."""
    found, wanted = predicted == value, truth == value
    return float((found & wanted).sum() / max(1, (found | wanted).sum()))


def near_contours(masks: np.ndarray) -> np.ndarray:
    """Pixels of (n, h, w) with another class among their eight neighbours, bool."""
    window = (1, 3, 3)
    return ndimage.maximum_filter(masks, window) != ndimage.minimum_filter(masks, window)


def examine(predicted: np.ndarray, truth: np.ndarray, name: str) -> dict[str, float]:
    """Mean and single IoU of the three shapes; shares of right pixels, of all and at contours.

    At contours only shape or background counts: whether the contour is met, not what the shape is.
    """
    same = (predicted > 0) == (truth > 0)
    each = {shape: class_iou(predicted, truth, 1 + i) for i, shape in enumerate(CLASSES)}
    return {
        f"iou_{name}": float(np.mean(list(each.values()))),
        **{f"iou_{shape}_{name}": value for shape, value in each.items()},
        f"pixel_accuracy_{name}": float(np.mean(predicted == truth)),
        f"contour_accuracy_{name}": float(np.mean(same[near_contours(truth)])),
        f"shape_iou_{name}": class_iou(predicted > 0, truth > 0, True),
    }


def floors(validation: Scenes, test: Scenes) -> dict[str, float]:
    """What needs no learning: everything background, a colour threshold; and a limit, 6x6 pixels.

    The threshold is chosen on validation images and finds shapes of any class. The limit is the
    truth itself where each 8x8 block has its most frequent class: what the decoder starts from.
    """
    distance = colour_distance(validation.images)
    candidates = np.percentile(distance, range(5, 100, 5))
    scores = [class_iou(distance > c, validation.masks > 0, True) for c in candidates]
    guess = colour_distance(test.images) > candidates[int(np.argmax(scores))]
    blocks = test.masks.reshape(-1, SIZE // 8, 8, SIZE // 8, 8)
    counts = np.stack([(blocks == c).sum(axis=(2, 4)) for c in range(1 + len(CLASSES))])
    coarse = counts.argmax(axis=0).repeat(8, axis=1).repeat(8, axis=2)
    return {
        "floor_background_pixel_accuracy": float(np.mean(test.masks == 0)),
        "floor_colour_shape_iou": class_iou(guess, test.masks > 0, True),
        "truth_at_6x6_iou": examine(coarse, test.masks, "coarse")["iou_coarse"],
    }


def comparison_figure(test: Scenes, predicted: np.ndarray, count: int = 6) -> figures.Figure:
    """The first test images: image, truth, both predicted masks; the true contours are in black."""
    palette = np.array([(235, 235, 235), (0, 114, 178), (230, 159, 0), (0, 158, 115)], np.uint8)
    labels = ("image", "truth", *(name.replace("_", " ") for name in NETWORKS))
    figure, axes = figures.subplots(4, count, size=(1.7 * count, 7.2))
    for column in range(count):
        truth = test.masks[column]
        masks = [palette[predicted[column, ..., index]] for index in range(len(NETWORKS))]
        shown = (test.images[column], palette[truth], *masks)
        for axis, image in zip(axes[:, column], shown, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        for axis in axes[2:, column]:
            axis.contour(truth > 0, levels=[0.5], colors="black", linewidths=1)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    figure.suptitle("Blue: disc, orange: square, green: triangle", fontsize=10)
    return figure


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print both networks beside the floors and return `metrics`."""
    print("                  IoU   pixels right   contours right")
    for name in NETWORKS:
        values = [metrics[f"{key}_{name}"] for key in ("iou", "pixel_accuracy", "contour_accuracy")]
        print("{:16s}{:5.3f} {:14.3f} {:16.3f}".format(name.replace("_", " "), *values))
    print(
        f"Floor, all background: {metrics['floor_background_pixel_accuracy']:.3f} of the pixels "
        "right.\n"
        f"Floor, colour threshold: IoU {metrics['floor_colour_shape_iou']:.3f} for shapes of any "
        f"class; with skip {metrics['shape_iou_with_skip']:.3f}.\n"
        f"The truth at 6x6 pixels, enlarged: IoU {metrics['truth_at_6x6_iou']:.3f}.\n"
        f"Largest difference of a pixel's probabilities from a sum of 1: "
        f"{metrics['largest_sum_error']:.1e}."
    )
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train both, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    counts = {"train": 64, "validation": 16, "test": 16} if config.smoke else {}
    counts = {"train": 2000, "validation": 200, "test": 500} | counts
    training, validation, test = (scenes(part, count) for part, count in counts.items())
    config = replace(config, epochs=1 if config.smoke else config.epochs)
    name = f"encoder_decoder-adam-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, "generated", name) as run:
        if run.is_finished:
            return show(run.metrics)
        labkit.prepare(config.seed)
        model = build()
        train(model, config, training, validation, run)
        metrics = {"train_seconds": run.seconds}
        probabilities = model.predict(to_input(test.images), batch_size=50, verbose=0)
        predicted = probabilities.argmax(axis=-1)  # (n, 48, 48, 2)
        for index, network in enumerate(NETWORKS):
            metrics |= examine(predicted[..., index], test.masks, network)
        metrics["largest_sum_error"] = np.abs(probabilities.sum(axis=-1) - 1).max()
        metrics |= floors(validation, test)
        run.log_metrics(metrics)
        run.save_figure(
            "learning_curves", figures.learning_curves(run.history, ["loss", "accuracy"])
        )
        run.save_figure("segmentation", comparison_figure(test, predicted))
        rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in run.metrics.items())
        run.save_text("report.md", f"# {name}\n\n| metric | value |\n| --- | --- |\n{rows}\n")
        keras.Model(model.input, model.output).save(run.folder / "model.keras")  # no optimizer
    return show(run.metrics)


if __name__ == "__main__":
    main()
