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
from dataclasses import dataclass, replace

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.boxes import Detections, average_precision, mean_iou, suppress
from tp3_cnn_resnet.models import to_input
from tp3_cnn_resnet.shapes import CLASSES, MOST, SIZE, Scenes, colour_distance, scenes

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
ndimage = labkit.lazy("scipy.ndimage")

STRIDE = 4
"""Side of a cell in pixels; no two shapes of these images have their centres in one."""
CELLS = SIZE // STRIDE
LOWEST_SCORE = 0.05
"""Cells below it are not worth a box."""


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    epochs: int = 8
    """Passes over the 4,000 training images, 1 or more."""
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


# --- Boxes to cells and back ---------------------------------------------------------------------


def encode(data: Scenes) -> np.ndarray:
    """Truth of each cell, (n, 12, 12, 6): object (0 or 1), x, y, w, h, class.

    x and y are the box's centre within the cell, 0..1; w and h shares of the image, 0..1. The
    cell that holds the centre is responsible for the box; zeros elsewhere.
    """
    targets = np.zeros((len(data.images), CELLS, CELLS, 6), np.float32)
    for target, boxes, labels in zip(targets, data.boxes, data.labels, strict=True):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / STRIDE
        columns, rows = centres.astype(int).T
        sizes = (boxes[:, 2:] - boxes[:, :2]) / SIZE
        target[rows, columns] = np.column_stack([np.ones(len(boxes)), centres % 1, sizes, labels])
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


def train(model: keras.Model, config: Config, training: Scenes, validation: Scenes, run) -> None:
    """Fit all three predictions by their joint loss; the rate falls to zero along a cosine."""
    steps = config.epochs * -(-len(training.images) // 32)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.003, steps)),
        loss=joint_loss,
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            training.images, encode(training), 32, config.seed, run.first_epoch,
            lambda images, rng: to_input(images),
        ),
        validation_data=(to_input(validation.images), encode(validation)),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip


# --- Score ---------------------------------------------------------------------------------------


def examine(found: list[Detections], test: Scenes) -> dict[str, float]:
    """Average precision at IoU 0.5: of boxes whatever their class, and the mean over classes."""
    each = [
        average_precision(
            [d.only(d.labels == label) for d in found],
            [b[own == label] for b, own in zip(test.boxes, test.labels, strict=True)],
        )
        for label in range(len(CLASSES))
    ]
    return {"box_ap": average_precision(found, test.boxes), "ap": float(np.mean(each))}


def mean_box(training: Scenes, count: int) -> list[Detections]:
    """A floor: the mean training box, in the most frequent class, in each of `count` images."""
    box = np.concatenate(training.boxes).mean(axis=0, keepdims=True)
    label = np.bincount(np.concatenate(training.labels)).argmax(keepdims=True)
    return [Detections(box, np.ones(1), label)] * count


def colour_boxes(data: Scenes, threshold: float) -> list[Detections]:
    """A floor: extents of connected areas far from the median colour, the largest first."""
    found = []
    for distance in colour_distance(data.images):
        areas, _ = ndimage.label(ndimage.median_filter(distance, 3) > threshold)
        slices = ndimage.find_objects(areas)
        boxes = [(c.start, r.start, c.stop, r.stop) for r, c in slices]
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        size = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
        found.append(Detections(boxes, size / SIZE**2, np.zeros(len(boxes), int)))
    return found


# --- Figures, main -------------------------------------------------------------------------------


def boxes_figure(
    test: Scenes, raw: list[Detections], kept: list[Detections], count: int = 6
) -> figures.Figure:
    """The first test images: true boxes, all boxes found, and those left after suppression."""
    figure, axes = figures.subplots(3, count, size=(1.9 * count, 6.2))
    for column in range(count):
        true = Detections(test.boxes[column], np.ones(MOST), test.labels[column])
        for axis, shown in zip(axes[:, column], (true, raw[column], kept[column]), strict=True):
            axis.imshow(test.images[column], extent=(0, SIZE, SIZE, 0))
            axis.set(xticks=[], yticks=[], autoscale_on=False)  # a box may reach out
            axis.grid(False)
            for box, score, label in zip(shown.boxes, shown.scores, shown.labels, strict=False):
                draw_box(axis, box, CLASSES[label] + ("" if shown is true else f" {score:.0%}"))
    for axis, label in zip(axes[:, 0], ("truth", "all cells' boxes", "suppressed"), strict=True):
        axis.set_ylabel(label)
    return figure


def draw_box(axis, box: np.ndarray, text: str) -> None:
    """A white frame with a black edge, and a word above it."""
    left, top, right, bottom = box
    xs, ys = (left, right, right, left, left), (top, top, bottom, bottom, top)
    axis.plot(xs, ys, color="black", linewidth=2.5)
    axis.plot(xs, ys, color="white", linewidth=1.2)
    axis.text(
        left, top - 0.7, text, fontsize=6, color="white",
        bbox={"facecolor": "black", "pad": 0.6, "linewidth": 0},
    )  # fmt: skip


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the detector beside its floors and return `metrics`."""
    print("average precision at IoU 0.5        boxes   boxes and classes")
    for title, prefix in (
        ("detector", ""),
        ("without suppression", "unsuppressed_"),
        ("floor: mean box", "floor_mean_"),
        ("floor: areas of another colour", "floor_colour_"),
    ):
        box, both = metrics[f"{prefix}box_ap"], metrics[f"{prefix}ap"]
        print(f"{title:34s}  {box:.3f}   {both:.3f}")
    print(
        f"Mean IoU of true boxes: {metrics['iou']:.3f} (mean box: {metrics['floor_mean_iou']:.3f})."
        f"\nBoxes per image: {metrics['boxes_per_image']:.1f} after suppression, "
        f"{metrics['unsuppressed_boxes_per_image']:.1f} before; "
        f"{metrics['true_boxes_per_image']:.1f} shapes."
    )
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    counts = {"train": 64, "validation": 16, "test": 16} if config.smoke else {}
    counts = {"train": 4000, "validation": 300, "test": 500} | counts
    training, validation, test = (scenes(part, count) for part, count in counts.items())
    config = replace(config, epochs=1 if config.smoke else config.epochs)
    name = f"one_stage-adam-objectness+box+class-s{config.seed}"
    with labkit.start_run(__file__, config, "generated", name) as run:
        if run.is_finished:
            return show(run.metrics)
        labkit.prepare(config.seed)
        model = build()
        train(model, config, training, validation, run)
        metrics = {"train_seconds": run.seconds}
        threshold = max(  # of the floor, chosen on validation images as all else
            range(40, 160, 20),
            key=lambda t: average_precision(colour_boxes(validation, t), validation.boxes),
        )
        raw = decode(model.predict(to_input(test.images), batch_size=50, verbose=0))
        kept = [suppress(found) for found in raw]
        for prefix, found in (
            ("", kept),
            ("unsuppressed_", raw),
            ("floor_mean_", mean_box(training, len(test.images))),
            ("floor_colour_", colour_boxes(test, threshold)),
        ):
            metrics |= {prefix + key: value for key, value in examine(found, test).items()}
            metrics[f"{prefix}iou"] = mean_iou(found, test.boxes)
            metrics[f"{prefix}boxes_per_image"] = np.mean([len(d.scores) for d in found])
        metrics["true_boxes_per_image"] = np.mean([len(boxes) for boxes in test.boxes])
        run.log_metrics(metrics)
        run.save_figure("learning_curves", figures.learning_curves(run.history, ["loss"]))
        run.save_figure("boxes", boxes_figure(test, raw, kept))
        rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in run.metrics.items())
        run.save_text("report.md", f"# {name}\n\n| metric | value |\n| --- | --- |\n{rows}\n")
        keras.Model(model.input, model.output).save(run.folder / "model.keras")  # no optimizer
    return show(run.metrics)


if __name__ == "__main__":
    main()
