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
from dataclasses import replace

import numpy as np

import labkit
from labkit import figures, results
from tp3_cnn_resnet.models import to_input
from tp3_cnn_resnet.shapes import CLASSES, SIZE, SMOKE_SIZES, Settings, colour_distance, generate

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
ndimage = labkit.lazy("scipy.ndimage")

NETWORKS = ("without_skip", "with_skip")
WIDTHS = (8, 16, 48)
BATCH_SIZE = 16


class Config(Settings):
    """Settings of one training."""


def load(choice: labkit.DataChoice, smoke: bool) -> labkit.Data:
    """Images (n, 48, 48, 3) and their masks (n, 48, 48), classes 0 to 3; both uint8."""
    sizes = {"train": 2000, "validation": 200, "test": 500}
    return generate("masks", SMOKE_SIZES if smoke else sizes)


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


def train(model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run) -> None:
    """Fit both by the mean cross-entropy of all pixels; the rate falls to zero along a cosine."""
    steps = config.epochs * -(-len(data.train) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.004, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            data.train.x, data.train.y, BATCH_SIZE, config.seed, run.first_epoch,
            lambda images, masks, rng: (to_input(images), twice(masks)),
        ),
        validation_data=(to_input(data.validation.x), twice(data.validation.y)),
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


def floors(validation: labkit.Part, test: labkit.Part) -> dict[str, float]:
    """What needs no learning: everything background, a colour threshold; and a limit, 6x6 pixels.

    The threshold is chosen on validation images and finds shapes of any class. The limit is the
    truth itself where each 8x8 block has its most frequent class: what the decoder starts from.
    """
    distance = colour_distance(validation.x)
    candidates = np.percentile(distance, range(5, 100, 5))
    scores = [class_iou(distance > c, validation.y > 0, True) for c in candidates]
    threshold = candidates[int(np.argmax(scores))]
    blocks = test.y.reshape(-1, SIZE // 8, 8, SIZE // 8, 8)
    counts = np.stack([(blocks == c).sum(axis=(2, 4)) for c in range(1 + len(CLASSES))])
    coarse = counts.argmax(axis=0).repeat(8, axis=1).repeat(8, axis=2)
    return {
        "floor_background_pixel_accuracy": float(np.mean(test.y == 0)),
        "threshold_floor_colour": float(threshold),
        "floor_colour_shape_iou": class_iou(colour_distance(test.x) > threshold, test.y > 0, True),
        "truth_at_6x6_iou": examine(coarse, test.y, "coarse")["iou_coarse"],
    }


def evaluate(probabilities: np.ndarray, data: labkit.Data) -> dict[str, float]:
    """Both networks on the test images, beside the floors; probabilities (n, 48, 48, 2, 4)."""
    predicted = probabilities.argmax(axis=-1)  # (n, 48, 48, 2)
    metrics = {"largest_sum_error": float(np.abs(probabilities.sum(axis=-1) - 1).max())}
    for index, network in enumerate(NETWORKS):
        metrics |= examine(predicted[..., index], data.test.y, network)
    return metrics | floors(data.validation, data.test)


# --- Figure, table, main -------------------------------------------------------------------------


def comparison_figure(test: labkit.Part, predicted: np.ndarray, count: int = 6) -> figures.Figure:
    """The first test images: image, truth, both predicted masks; the true contours are in black."""
    palette = np.array([(235, 235, 235), (0, 114, 178), (230, 159, 0), (0, 158, 115)], np.uint8)
    labels = ("image", "truth", *(name.replace("_", " ") for name in NETWORKS))
    figure, axes = figures.subplots(4, count, size=(1.7 * count, 7.2))
    for column in range(count):
        truth = test.y[column]
        masks = [palette[predicted[column, ..., index]] for index in range(len(NETWORKS))]
        shown = (test.x[column], palette[truth], *masks)
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


def table(metrics: dict[str, float]) -> str:
    """Both networks beside the floors, as a Markdown table, and whether probabilities add to 1."""
    columns = ("iou", "pixel_accuracy", "contour_accuracy", "shape_iou")
    header = ("IoU, mean of shapes", "pixels right", "contours right", "IoU, shape or background")
    lines = {
        **{n.replace("_", " "): {c: metrics[f"{c}_{n}"] for c in columns} for n in NETWORKS},
        "floor: all background": {"pixel_accuracy": metrics["floor_background_pixel_accuracy"]},
        "floor: colour threshold": {"shape_iou": metrics["floor_colour_shape_iou"]},
        "limit: the truth at 6x6 pixels": {"iou": metrics["truth_at_6x6_iou"]},
    }
    rows = [
        [label, *(f"{found[c]:.3f}" if c in found else "" for c in columns)]
        for label, found in lines.items()
    ]
    return (
        f"{results.markdown_table(['', *header], rows)}\nLargest difference of a pixel's "
        f"probabilities from a sum of 1: {metrics['largest_sum_error']:.1e}."
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train both, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    config = replace(config, epochs=2 if config.smoke else config.epochs)
    data = load(config.data, config.smoke)
    name = f"encoder_decoder-adam-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            labkit.prepare(config.seed)
            model = build()
            train(model, config, data, run)
            seconds = run.seconds
            keras.Model(model.input, model.output).save(run.folder / "model.keras")  # no optimizer
            probabilities = model.predict(to_input(data.test.x), batch_size=50, verbose=0)
            run.log_metrics({"train_seconds": seconds} | evaluate(probabilities, data))
            curves = figures.learning_curves(run.history, ["loss", "accuracy"])
            run.save_figure("learning_curves", curves)
            run.save_figure("segmentation", comparison_figure(data.test, probabilities.argmax(-1)))
            run.save_report(name, table(run.metrics))
    print(table(run.metrics))
    return run.metrics


if __name__ == "__main__":
    main()
