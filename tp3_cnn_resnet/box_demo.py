"""How does a network give out boxes, and how is it judged?

    python tp3_cnn_resnet/box_demo.py
    python tp3_cnn_resnet/box_demo.py --smoke    # everything once, in seconds

A one-stage detector: each of 12x12 cells predicts three things at once, whether the centre of a
shape lies in it (objectness), which box (x, y, w, h), which class. One loss adds the three. Several
cells may find the same shape, so non-maximum suppression keeps the surest box of those that
overlap; boxes count as right by their IoU (`boxes.py`). About a minute on two cores.

Reference: Redmon et al., "You Only Look Once" (CVPR 2016) for the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import labkit
from labkit import figures, results
from tp3_cnn_resnet.boxes import Detections, average_precision, mean_iou, suppress
from tp3_cnn_resnet.models import to_input
from tp3_cnn_resnet.shapes import CLASSES, SIZE, SMOKE_SIZES, Settings, colour_distance, generate

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
ndimage = labkit.lazy("scipy.ndimage")

STRIDE = 4
"""Side of a cell in pixels; no two shapes of these images have their centres in one."""
CELLS = SIZE // STRIDE
BATCH_SIZE = 32
LOWEST_SCORE = 0.05
"""Cells below it are not worth a box; average precision wants the unsure ones, too."""
SHOWN_SCORE = 0.3
"""Boxes below it are not drawn after suppression."""


class Config(Settings):
    """Settings of one training."""


def load(choice: labkit.DataChoice, smoke: bool) -> labkit.Data:
    """Images (n, 48, 48, 3) uint8; the truth of each is (shapes, 5), see `shapes.scenes`."""
    sizes = {"train": 4000, "validation": 300, "test": 500}
    return generate("boxes", SMOKE_SIZES if smoke else sizes)


# --- Boxes to cells and back ---------------------------------------------------------------------


def encode(truth: np.ndarray) -> np.ndarray:
    """Truth of each cell, (n, 12, 12, 6), of boxes as `load` gives them: object, x, y, w, h, class.

    Object is 0 or 1; x and y are the box's centre within the cell, 0..1; w and h shares of the
    image, 0..1. The cell that holds the centre is responsible for the box; zeros elsewhere.
    """
    targets = np.zeros((len(truth), CELLS, CELLS, 6), np.float32)
    for target, boxes in zip(targets, truth, strict=True):
        centres = (boxes[:, :2] + boxes[:, 2:4]) / 2 / STRIDE
        columns, rows = centres.astype(int).T
        sizes = (boxes[:, 2:4] - boxes[:, :2]) / SIZE
        objects = np.ones(len(boxes))
        target[rows, columns] = np.column_stack([objects, centres % 1, sizes, boxes[:, 4]])
    return targets


def decode(predictions: np.ndarray) -> list[Detections]:
    """The network's predictions (n, 12, 12, 8) as boxes in pixels, before any is suppressed."""
    probability = 1 / (1 + np.exp(-predictions[..., :5]))  # object, x, y, w, h
    found = []
    for cells, logits in zip(probability, predictions[..., 5:], strict=True):
        rows, columns = np.nonzero(cells[..., 0] > LOWEST_SCORE)
        score, x, y, width, height = cells[rows, columns].T
        x, y = (columns + x) * STRIDE, (rows + y) * STRIDE
        half_width, half_height = width * SIZE / 2, height * SIZE / 2
        corners = [x - half_width, y - half_height, x + half_width, y + half_height]
        labels = logits[rows, columns].argmax(axis=-1)
        found.append(Detections(np.column_stack(corners), score, labels))
    return found


# --- Network and loss ----------------------------------------------------------------------------


def build() -> keras.Model:
    """Images (B, 48, 48, 3) to (B, 12, 12, 8): object, x, y, w, h before a sigmoid, 3 classes."""
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for width, pooled in ((16, True), (32, True), (64, False), (64, False), (64, False)):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
        if pooled:
            x = keras.layers.MaxPooling2D()(x)  # (B, 24, 24, 16), (B, 12, 12, 32)
    predictions = keras.layers.Conv2D(5 + len(CLASSES), 1)(x)  # (B, 12, 12, 8)
    return keras.Model(inputs, predictions)


def joint_loss(truth: keras.KerasTensor, predictions: keras.KerasTensor) -> keras.KerasTensor:
    """Objectness of all cells plus, where there is a shape, box and class: (B,) for each image.

    Cross-entropy, ten times the absolute error of x, y, w, h, cross-entropy; sums over cells.
    """
    ops = keras.ops
    is_object = truth[..., 0]
    objectness = keras.losses.binary_crossentropy(
        truth[..., :1], predictions[..., :1], from_logits=True
    )
    box = ops.sum(ops.abs(ops.sigmoid(predictions[..., 1:5]) - truth[..., 1:5]), axis=-1)
    kind = ops.sparse_categorical_crossentropy(
        ops.cast(truth[..., 5], "int32"), predictions[..., 5:], from_logits=True
    )
    return ops.sum(objectness + is_object * (10 * box + kind), axis=(1, 2))


def train(model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run) -> None:
    """Fit all three predictions by their joint loss; the rate falls to zero along a cosine."""
    steps = config.epochs * -(-len(data.train) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.003, steps)),
        loss=joint_loss,
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            data.train.x, encode(data.train.y), BATCH_SIZE, config.seed, run.first_epoch,
            lambda images, cells, rng: (to_input(images), cells),
        ),
        validation_data=(to_input(data.validation.x), encode(data.validation.y)),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip


# --- Score ---------------------------------------------------------------------------------------


def examine(found: list[Detections], truth: np.ndarray) -> dict[str, float]:
    """Average precision at IoU 0.5, of boxes whatever their class and the mean over classes; IoU.

    `truth` is as `load` gives it. The IoU is that of each true box with the best one found.
    """
    boxes = [rows[:, :4] for rows in truth]
    of_classes = [
        average_precision(
            [d.only(d.labels == label) for d in found],
            [rows[rows[:, 4] == label, :4] for rows in truth],
        )
        for label in range(len(CLASSES))
    ]
    return {
        "box_ap": average_precision(found, boxes),
        "ap": float(np.mean(of_classes)),
        "iou": mean_iou(found, boxes),
        "boxes_per_image": float(np.mean([len(d.scores) for d in found])),
    }


def mean_box(training: np.ndarray, count: int) -> list[Detections]:
    """A floor: the mean training box, in the most frequent class, in each of `count` images."""
    rows = np.concatenate(training)
    box = rows[:, :4].mean(axis=0, keepdims=True)
    label = np.bincount(rows[:, 4].astype(int)).argmax(keepdims=True)
    return [Detections(box, np.ones(1), label)] * count


def colour_boxes(images: np.ndarray, threshold: float) -> list[Detections]:
    """A floor: extents of connected areas far from the median colour, the largest first."""
    found = []
    for distance in colour_distance(images):
        areas, _ = ndimage.label(ndimage.median_filter(distance, 3) > threshold)
        boxes = [(c.start, r.start, c.stop, r.stop) for r, c in ndimage.find_objects(areas)]
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        size = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
        found.append(Detections(boxes, size / SIZE**2, np.zeros(len(boxes), int)))
    return found


def evaluate(raw: list[Detections], kept: list[Detections], data: labkit.Data) -> dict[str, float]:
    """The boxes found in the test images, before and after suppression, beside the floors.

    The colour floor's distance is chosen on validation images, as all else.
    """
    images, boxes = data.validation.x, [rows[:, :4] for rows in data.validation.y]
    candidates = range(40, 160, 20)
    threshold = max(candidates, key=lambda c: average_precision(colour_boxes(images, c), boxes))
    shapes = np.mean([len(rows) for rows in data.test.y])
    metrics = {"threshold_floor_colour": threshold, "true_boxes_per_image": shapes}
    for prefix, found in (
        ("", kept),
        ("unsuppressed_", raw),
        ("floor_mean_", mean_box(data.train.y, len(data.test))),
        ("floor_colour_", colour_boxes(data.test.x, threshold)),
    ):
        metrics |= {prefix + key: value for key, value in examine(found, data.test.y).items()}
    return metrics


# --- Figure, table, main -------------------------------------------------------------------------


def boxes_figure(
    test: labkit.Part, raw: list[Detections], kept: list[Detections], count: int = 6
) -> figures.Figure:
    """The first test images: true boxes, all boxes found, and the surer of those that are left.

    The surer a cell, the more opaque its box; names would hide each other before suppression.
    """
    figure, axes = figures.subplots(3, count, size=(1.9 * count, 6.2))
    for column in range(count):
        rows = test.y[column]
        true = Detections(rows[:, :4], np.ones(len(rows)), rows[:, 4].astype(int))
        left = kept[column].only(kept[column].scores >= SHOWN_SCORE)
        for axis, shown in zip(axes[:, column], (true, raw[column], left), strict=True):
            axis.imshow(test.x[column], extent=(0, SIZE, SIZE, 0))
            axis.set(xticks=[], yticks=[], autoscale_on=False)  # a box may reach out
            axis.grid(False)
            for box, score, label in zip(shown.boxes, shown.scores, shown.labels, strict=True):
                x, y, right, bottom = box
                for colour, linewidth in (("black", 2.5), ("white", 1.2)):
                    axis.plot(
                        (x, right, right, x, x), (y, y, bottom, bottom, y),
                        color=colour, linewidth=linewidth, alpha=0.2 + 0.8 * score,
                    )  # fmt: skip
                if shown is not raw[column]:
                    axis.text(
                        x, y - 0.7, CLASSES[label] + ("" if shown is true else f" {score:.0%}"),
                        fontsize=6, color="white",
                        bbox={"facecolor": "black", "pad": 0.6, "linewidth": 0},
                    )  # fmt: skip
    labels = ("truth", "all cells' boxes", f"suppressed, from {SHOWN_SCORE:.0%} on")
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    return figure


def table(metrics: dict[str, float]) -> str:
    """The detector with and without suppression beside the floors, as a Markdown table."""
    columns = ("box_ap", "ap", "iou", "boxes_per_image")
    header = ("average precision", "with classes", "IoU of true boxes", "boxes per image")
    lines = {"detector": "", "detector, all cells' boxes": "unsuppressed_"}
    lines |= {"floor: mean box": "floor_mean_", "floor: other colours": "floor_colour_"}
    rows = [[label, *(f"{metrics[p + c]:.3f}" for c in columns)] for label, p in lines.items()]
    truth = ["the truth", "", "", "", f"{metrics['true_boxes_per_image']:.3f}"]
    return results.markdown_table(["", *header], [*rows, truth])


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    config = replace(config, epochs=2 if config.smoke else config.epochs)
    data = load(config.data, config.smoke)
    name = f"one_stage-adam-objectness+box+class-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            labkit.prepare(config.seed)
            model = build()
            train(model, config, data, run)
            seconds = run.seconds
            keras.Model(model.input, model.output).save(run.folder / "model.keras")  # no optimizer
            raw = decode(model.predict(to_input(data.test.x), batch_size=50, verbose=0))
            kept = [suppress(found) for found in raw]
            run.log_metrics({"train_seconds": seconds} | evaluate(raw, kept, data))
            run.save_figure("learning_curves", figures.learning_curves(run.history, ["loss"]))
            run.save_figure("boxes", boxes_figure(data.test, raw, kept))
            run.save_report(name, table(run.metrics))
    print(table(run.metrics))
    return run.metrics


if __name__ == "__main__":
    main()
