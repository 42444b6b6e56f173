"""How far do the hand-out's CNN and its Mini-ResNet get on CIFAR-10?

    python tp3_cnn_resnet/cnn_classification.py                        # the hand-out's CNN
    python tp3_cnn_resnet/cnn_classification.py --model resnet-plain   # its Mini-ResNet
    python tp3_cnn_resnet/cnn_classification.py --model resnet         # with batch normalisation
    python tp3_cnn_resnet/cnn_classification.py --model resnet --rate falling
    python tp3_cnn_resnet/cnn_classification.py --smoke                # once, in seconds

Expected on real CIFAR-10: about 72, 73, 75 and 81 % of the test images, after 3 to 8 minutes on two
cores; README.md has the exact figures with their spread. Add --resume to go on after a crash.
`fast_cnn.py` gets much further in the same time.

Reference: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.cifar10 import INPUT_SHAPE, NUM_CLASSES, load, measure, one_hot, score, table
from tp3_cnn_resnet.models import forward_flops, to_input

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
batches = labkit.lazy("labkit.batches")
normalisation = labkit.lazy("tp3_cnn_resnet.normalisation")

EPOCHS, BATCH_SIZE = 10, 64
"""The hand-out's."""


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    model: Literal["cnn", "resnet-plain", "resnet"] = "cnn"
    """The hand-out's CNN, or its Mini-ResNet without and with batch normalisation."""
    rate: Literal["constant", "falling"] = "constant"
    """Adam's learning rate: its default all the time, or a half cosine from there to almost
    nothing."""
    epochs: int = EPOCHS
    """Passes over the training images, 1 or more."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: float32 for cnn, the machine's faster one for the others."""


# --- Networks: (B, 32, 32, 3) images in 0..1 become 10 probabilities ------------------------------


def build_cnn() -> keras.Model:
    """The hand-out's network: 2,122,186 parameters, nearly all in the first dense layer."""
    inputs = keras.Input(INPUT_SHAPE)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)  # (B, 32, 32, 32)
    x = keras.layers.MaxPooling2D(2)(x)  # (B, 16, 16, 32)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)  # (B, 16, 16, 64)
    x = keras.layers.MaxPooling2D(2)(x)  # (B, 8, 8, 64)
    x = keras.layers.Flatten()(x)  # (B, 4096)
    x = keras.layers.Dense(512, activation="relu")(x)  # (B, 512)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="cnn")


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: tuple[int, int] = (3, 3),
    stride: int = 1,
    momentum: float | None = 0.99,
) -> keras.KerasTensor:
    """A convolution and batch normalisation of that `momentum`; None: no normalisation."""
    x = keras.layers.Conv2D(filters, kernel_size, strides=stride, padding="same")(x)
    if momentum is None:
        return x
    return normalisation.OnePassBatchNormalization(momentum=momentum)(x)


def residual_block(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: tuple[int, int] = (3, 3),
    stride: int = 1,
    momentum: float | None = 0.99,
) -> keras.KerasTensor:
    """relu(x + F(x)), F two convolutions (He et al. 2016, section 3.2, equations 1 and 2).

    (B, h, w, c) becomes (B, h / stride, w / stride, filters). The skip connection is projected by
    a 1x1 convolution whenever stride or channels change: shapes must match to be added.
    """
    y = keras.layers.Activation("relu")(convolve(x, filters, kernel_size, stride, momentum))
    y = convolve(y, filters, kernel_size, 1, momentum)
    if stride > 1 or x.shape[-1] != filters:
        x = convolve(x, filters, (1, 1), stride, momentum)
    return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))


def build_resnet(momentum: float | None = 0.99) -> keras.Model:
    """The hand-out's Mini-ResNet, three residual blocks.

    With batch normalisation it begins with a convolution: 153,098 parameters. Without
    (`momentum=None`), as the hand-out's text has it, the blocks begin at once: 142,314. `momentum`
    is the memory of the moving averages; Keras' own default is 0.99.
    """
    inputs = x = keras.Input(INPUT_SHAPE)
    if momentum is not None:
        x = keras.layers.Activation("relu")(convolve(x, 32, momentum=momentum))  # (B, 32, 32, 32)
    x = residual_block(x, 32, momentum=momentum)  # (B, 32, 32, 32)
    x = residual_block(x, 64, stride=2, momentum=momentum)  # (B, 16, 16, 64)
    x = residual_block(x, 64, momentum=momentum)  # (B, 16, 16, 64)
    x = keras.layers.GlobalAveragePooling2D()(x)  # (B, 64)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="resnet_plain" if momentum is None else "resnet")


BUILDERS = {
    "cnn": build_cnn,
    "resnet-plain": lambda: build_resnet(momentum=None),
    "resnet": build_resnet,
}


# --- Training, evaluation -------------------------------------------------------------------------


def train(model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run) -> None:
    """The hand-out's training: Adam at its defaults, batches of 64.

    `run` keeps the weights of the best validation epoch; `model` has the last epoch's.
    """
    labels, validated = one_hot(data.train.y), one_hot(data.validation.y)
    print(f"Labels {data.train.y.shape}, one-hot {labels.shape}")
    validated = (to_input(data.validation.x), validated)
    callbacks = [run.keeps_best("val_accuracy", "max"), run.checkpoints(model)]
    if config.model == "resnet":
        some = to_input(data.train.x[: normalisation.RECALIBRATION_IMAGES])
        twin = build_resnet(momentum=0.0)
        callbacks.insert(0, normalisation.RecalibratedAccuracy(twin, some, validated))
    rate = 0.001  # Adam's default
    if config.rate == "falling":
        steps = config.epochs * -(-len(data.train) // BATCH_SIZE)
        rate = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            data.train.x, labels, BATCH_SIZE, config.seed, run.first_epoch,
            transform=lambda x, y, rng: (to_input(x), y),
        ),
        validation_data=validated,
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=callbacks,
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip


def evaluate(
    model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run
) -> tuple[keras.Model, dict[str, float]]:
    """The network with the weights of the best validation epoch, and its figures.

    It is built in float32: evaluation doesn't depend on the precision of the training. Beside its
    test accuracy stands that of the last epoch's weights, which `model` has.
    """
    labkit.prepare(config.seed)
    best = BUILDERS[config.model]()
    best.set_weights(model.get_weights())
    metrics = {
        "best_epoch": int(np.argmax(run.history["val_accuracy"])) + 1,
        "test_accuracy_last_epoch": score(best, data.test)[1],
    }
    best.load_weights(run.best_file)
    flops = config.epochs * forward_flops(best)
    metrics["training_petaflop"] = 3 * flops * len(data.train) / 1e15
    if config.model == "resnet":
        metrics |= normalisation.batchnorm_lag(run.history)
    return best, metrics | measure(best, data)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke)
    precision = "float32" if config.model == "cnn" else labkit.fast_precision()
    config = replace(
        config,
        epochs=2 if config.smoke else config.epochs,
        precision=precision if config.precision == "auto" else config.precision,
    )
    optimizer = "adam_falling" if config.rate == "falling" else "adam"
    name = f"{config.model.replace('-', '_')}-{optimizer}-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            labkit.prepare(config.seed, config.precision)
            model = BUILDERS[config.model]()
            train(model, config, data, run)
            seconds = run.seconds
            best, metrics = evaluate(model, config, data, run)
            run.log_metrics({"train_seconds": seconds} | metrics)
            best.save(run.folder / "model.keras")
            run.save_figure(
                "learning_curves", figures.learning_curves(run.history, ["loss", "accuracy"])
            )
            if config.model == "resnet":
                run.save_figure("recalibration", normalisation.recalibration_figure(run.history))
            run.save_report(
                f"{config.model} on CIFAR-10",
                f"{table(run.metrics)}\nThe weights of the best validation epoch are tested; "
                "beside them, the last epoch's.",
            )
    print(table(run.metrics))
    if config.model == "resnet":
        print(normalisation.lag_in_words(run.metrics))
    return run.metrics


if __name__ == "__main__":
    main()
