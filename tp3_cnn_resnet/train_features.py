"""How well does the small network that style transfer looks with know CIFAR-10?

    python tp3_cnn_resnet/train_features.py            # train it again
    python tp3_cnn_resnet/train_features.py --ship     # ... and put it into the repository
    python tp3_cnn_resnet/train_features.py --smoke    # everything once, in seconds

`style_transfer.py` falls back on it where ImageNet's VGG16 can't be had. It is a means, not a
record: of VGG16's build, no normalisation layers, 147,892 weights, saved in half precision. The
file itself tells its accuracy.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015) for the build.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import labkit
from labkit import figures, results
from labkit.arguments import fail
from labkit.machine import commit
from tp3_cnn_resnet.cifar10 import mirrored, score, translated
from tp3_cnn_resnet.models import to_input
from tp3_cnn_resnet.style_features import OWN_WEIGHTS, build

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
batches = labkit.lazy("labkit.batches")

BATCH_SIZE = 128
BLOCKS = {"block1": (24, 2), "block2": (48, 2), "block3": (64, 2), "block4": (80, 1)}
"""Channels and number of the convolutions of each block."""


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    epochs: int = 8
    """Passes over the training images, 1 or more."""
    ship: bool = False
    """Replace the file in the repository; only after a whole training on real CIFAR-10."""


def load(choice: labkit.DataChoice, smoke: bool) -> labkit.Data:
    """CIFAR-10, (n, 32, 32, 3) uint8 and (n,) labels; a tenth of its training part validates."""
    images = labkit.load_cifar10(choice)
    images = images.head(512, 256) if smoke else images
    order = np.random.default_rng(0).permutation(len(images.x_train))  # the same for every seed
    held_out = len(order) // 10
    return images.split(order[held_out:], order[:held_out])


def blank_network(x_train: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Untrained arrays as `build` takes them; the input is scaled by the images' statistics."""
    rng = np.random.default_rng(seed)
    scaled = to_input(x_train)
    mean, deviation = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    arrays = {
        "preprocess/kernel": np.diag(1 / deviation)[None, None].astype(np.float32),
        "preprocess/bias": (-mean / deviation).astype(np.float32),
    }
    channels = 3
    for block, (width, depth) in BLOCKS.items():
        for number in range(1, depth + 1):
            kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, width))  # He
            arrays[f"{block}_conv{number}/kernel"] = kernel.astype(np.float32)
            arrays[f"{block}_conv{number}/bias"] = np.zeros(width, np.float32)
            channels = width
    return arrays


def build_classifier(x_train: np.ndarray, seed: int) -> tuple[keras.Model, keras.Model]:
    """The features, (B, 32, 32, 3) in 0..1 to (B, 4, 4, 80), and a linear head on their means."""
    features = build(blank_network(x_train, seed))
    features.get_layer("preprocess").trainable = False
    x = keras.layers.GlobalAveragePooling2D()(features.output)  # (B, 80)
    outputs = keras.layers.Dense(10, activation="softmax")(x)  # (B, 10)
    return features, keras.Model(features.input, outputs)


def mirrored_and_moved(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple:
    """Half of the images mirrored, all moved by up to 4 pixels, as the network's input."""
    chosen = rng.random(len(images)) < 0.5
    return to_input(translated(mirrored(images, chosen), rng, reach=4)), labels


def train(model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run) -> None:
    """Fit by cross-entropy; the rate rises over a fifth of the steps, then falls along a cosine."""
    steps = config.epochs * -(-len(data.train) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps - steps // 5, alpha=0.005, warmup_target=2e-3, warmup_steps=steps // 5
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        steps_per_execution=10,
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            data.train.x, data.train.y, BATCH_SIZE, config.seed, run.first_epoch,
            mirrored_and_moved,
        ),
        validation_data=(to_input(data.validation.x), data.validation.y),
        epochs=config.epochs, initial_epoch=run.first_epoch, shuffle=False,
        callbacks=[run.checkpoints(model)], verbose=2,
    )  # fmt: skip


def round_weights(features: keras.Model) -> dict[str, np.ndarray]:
    """The arrays to be saved, kernels in half precision; the network keeps the rounded values."""
    arrays = {}
    for layer in features.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            if layer.name != "preprocess":
                kernel = kernel.astype(np.float16)
            layer.set_weights([kernel, bias])  # what is saved is tested
            arrays |= {f"{layer.name}/kernel": kernel, f"{layer.name}/bias": bias}
    return arrays


def evaluate(model: keras.Model, data: labkit.Data) -> dict[str, float]:
    """Accuracies, and the floor: always the most frequent training label."""
    metrics = {}
    for part, examples in (("validation", data.validation), ("test", data.test)):
        metrics[f"{part}_accuracy"] = score(model, examples)[1]
    majority = np.bincount(data.train.y).argmax()
    return metrics | {"floor_majority": float(np.mean(data.test.y == majority))}


def table(metrics: dict[str, float]) -> str:
    """Its accuracies beside the floor, as a Markdown table."""
    shown = {"test_accuracy": "test accuracy", "validation_accuracy": "validation accuracy"}
    return results.beside_floors(metrics, shown)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train our feature network, save it, return its accuracies."""
    config = labkit.parse(Config, argv)
    config = replace(config, epochs=2 if config.smoke else config.epochs)
    data = load(config.data, config.smoke)
    if config.ship and (config.smoke or data.source == "sample"):
        fail("--ship needs a whole training on real CIFAR-10")
    name = f"vgg_like-adamw-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        path = run.folder / OWN_WEIGHTS.name
        if not run.is_finished:
            labkit.prepare(config.seed)
            features, model = build_classifier(data.train.x, config.seed)
            train(model, config, data, run)
            arrays = round_weights(features)
            metrics = {"train_seconds": run.seconds} | evaluate(model, data)
            about = {"name": "cifar10_net", "label": "our CIFAR-10 network, not ImageNet"}
            about |= {"data_source": data.source, "commit": commit(), "epochs": config.epochs}
            about |= {"seed": config.seed, **metrics}
            np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)
            run.log_metrics(metrics)
            keras.Model(model.input, model.output).save(run.folder / "model.keras")  # no optimizer
            curves = figures.learning_curves(run.history, ["loss", "accuracy"])
            run.save_figure("learning_curves", curves)
            run.save_report(name, table(run.metrics))
        print(table(run.metrics))
        print(f"Use it: python tp3_cnn_resnet/style_transfer.py --weights {path}")
        if config.ship:
            shutil.copy2(path, OWN_WEIGHTS)
    return run.metrics


if __name__ == "__main__":
    main()
