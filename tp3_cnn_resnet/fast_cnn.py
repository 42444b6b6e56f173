"""How far does a convolutional network get on CIFAR-10 in six minutes on two cores, or in 70?

    python tp3_cnn_resnet/fast_cnn.py                    # 91 % of the test images, 6 minutes
    python tp3_cnn_resnet/fast_cnn.py --budget long      # 93.5 %, 25 minutes
    python tp3_cnn_resnet/fast_cnn.py --budget record    # a wider network: 94.4 %, 70 minutes
    python tp3_cnn_resnet/fast_cnn.py --smoke            # once, in seconds

README.md has the exact figures with their spread. Add --resume to go on after a crash. What each
part of the recipe is for, and where it comes from:

- Frozen whitening: the first convolution is computed from the images, not learnt (Page 2019).
- Identity kernels: each convolution begins by passing its input's channels on, which is what
  skip connections do in a residual network; this one has none.
- Alternating flips: each image is mirrored every other epoch, so that two epochs show both
  sides once instead of leaving it to chance.
- Small images first, in the shortest budget: at 24x24 pixels an epoch has 9/16 of the work that
  it has at 32x32.
- SiLU: close to the original's GELU, and cheaper.
- Orthogonal steps (`muon.py`): the small directions of a kernel's gradient count, too.
- Fast shifts: the normalisations' shifts learn 64 times as fast as the dense layer.
- Label smoothing, and a learning rate that falls to nothing in a straight line.

Small images are ours. Orthogonal steps are from Jordan et al., "Muon: An optimizer for hidden
layers in neural networks" (2024), the rest from Jordan, "94% on CIFAR-10 in 3.29 Seconds on a
Single GPU" (arXiv 2404.00498, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.cifar10 import (
    NUM_CLASSES,
    load,
    measure,
    mirrored,
    one_hot,
    table,
    translated,
)  # fmt: skip
from tp3_cnn_resnet.models import forward_flops, to_input

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")
muon = labkit.lazy("tp3_cnn_resnet.muon")
normalisation = labkit.lazy("tp3_cnn_resnet.normalisation")

PATCH = 2
"""Side of the whitened patches in pixels."""
LOGIT_SCALE = 1 / 9
"""Keeps the first softmax soft; the value is Jordan's."""


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    budget: Literal["default", "long", "record"] = "default"
    """How much time the training may take."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: the machine's faster one."""


@dataclass(frozen=True)
class Recipe:
    """How long a training takes, how wide its network is, and how it learns."""

    epochs: int
    small_share: float = 0.0
    """The first epochs, this share of them, see images of 24x24 pixels."""
    widths: tuple[int, ...] = (64, 256, 256)
    reach: int = 2
    """Images move by up to so many pixels."""
    batch_size: int = 1000
    learning_rate: float = 0.18
    """Of the kernels, at the beginning; `Muon` says what it is a share of."""
    weight_decay: float = 0.041
    """Of dense layer and shifts, multiplied by the learning rate at each step."""
    label_smoothing: float = 0.2
    validation_share: float = 0.1
    """Share of the training images kept out; 0 where nothing is left to choose by them."""

    def small_epochs(self, epochs: int) -> int:
        """How many of `epochs` see small images."""
        return round(epochs * self.small_share)


RECIPES = {
    "default": Recipe(epochs=5, small_share=0.6, widths=(64, 192, 256)),
    "long": Recipe(epochs=12, validation_share=0.0),
    "record": Recipe(epochs=14, widths=(128, 384, 384), validation_share=0.0),
}


# --- Network -------------------------------------------------------------------------------------


def whitening(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (2, 2, 3, 24) and bias (24,) of a convolution whose outputs are uncorrelated.

    `images` is (n, h, w, 3) in 0..1. The 12 numbers of a 2x2 patch are turned to the axes of
    their covariance and scaled to variance 1 each; the other 12 outputs are the negatives, so
    that nothing is lost in the activation that follows.
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH * 3)  # (m, 12)
    mean = patches.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(patches.T))
    white = axes / np.sqrt(variances + 3e-5)  # (12, 12), one column an output; 3e-5: noise floor
    kernel = np.concatenate([white, -white], axis=1)  # (12, 24)
    return kernel.reshape(PATCH, PATCH, 3, -1), -mean @ kernel


def build(images: np.ndarray, recipe: Recipe) -> keras.Model:
    """Whitening, then for each width a convolution with pooling and one without.

    `images` (n, 32, 32, 3) uint8 are the training images: the first 5,000 are those to whiten
    by. Images of any size from 16 pixels go in, so that the training can begin with small ones.
    """
    inputs = keras.Input((None, None, 3))  # (B, 32, 32, 3)
    whiten = keras.layers.Conv2D(24, PATCH, trainable=False, name="whitening")
    x = keras.layers.Activation("silu")(whiten(inputs))  # (B, 31, 31, 24)
    whiten.set_weights(whitening(to_input(images[:5000])))
    for width in recipe.widths:  # halves the sides: 31, 15, 7, 3
        x = normalise_and_activate(keras.layers.MaxPooling2D()(convolve(x, width)))
        x = normalise_and_activate(convolve(x, width))
    x = keras.layers.GlobalMaxPooling2D()(x)  # (B, widths[-1])
    x = keras.layers.Dense(NUM_CLASSES, use_bias=False, dtype="float32")(x)  # (B, 10)
    x = keras.layers.Rescaling(LOGIT_SCALE, dtype="float32")(x)
    outputs = keras.layers.Softmax(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="fast_cnn")


def convolve(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """A 3x3 convolution whose first filters pass the input's channels on: (B, h, w, filters)."""
    layer = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)
    outputs = layer(x)
    kernel = layer.get_weights()[0]  # (3, 3, in, filters)
    passed = range(min(kernel.shape[2:]))
    kernel[..., passed] = 0
    kernel[1, 1, passed, passed] = 1
    layer.set_weights([kernel])
    return outputs


def normalise_and_activate(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation that remembers two or three batches, then SiLU; the shape stays."""
    x = normalisation.OnePassBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False)(x)
    return keras.layers.Activation("silu")(x)


# --- Training, evaluation -------------------------------------------------------------------------


def alternating(
    images: np.ndarray, labels: np.ndarray, recipe: Recipe, seed: int, first_epoch: int
) -> batches.Batches:
    """Batches whose images move by up to `reach` pixels, and are mirrored every other epoch.

    `images` is (n, h, w, 3) uint8 and comes out in 0..1, `labels` (n, 10). A random half of the
    images is mirrored in even epochs, the other half in odd ones.
    """

    def augmented(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple:
        x = translated(x, rng, recipe.reach)
        return to_input(x[:, :, ::-1] if found.epoch % 2 else x), y

    first = np.random.default_rng(seed).random(len(images)) < 0.5
    images = mirrored(images, first)
    found = batches.Batches(images, labels, recipe.batch_size, seed, first_epoch, augmented)
    return found


def compile_with(recipe: Recipe, model: keras.Model, steps: int) -> None:
    """Give `model` the recipe's loss and optimiser, whose learning rate ends after `steps`."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        recipe.learning_rate, steps, end_learning_rate=0.0
    )
    model.compile(
        muon.Muon(rate, momentum=0.85, nesterov=True, weight_decay=recipe.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower than oneDNN on a CPU
    )


def stages(images: np.ndarray, small: int, epochs: int) -> list[tuple[np.ndarray, int, int]]:
    """Images, first and last epoch (from 0, the end excluded) of the two parts of a training.

    `images` is (n, 32, 32, 3) uint8; the first `small` epochs see them at 24x24 pixels.
    """
    if not small:
        return [(images, 0, epochs)]
    shrunk = keras.ops.image.resize(images, (24, 24), antialias=True)
    shrunk = np.round(keras.ops.convert_to_numpy(shrunk)).astype(np.uint8)
    return [(shrunk, 0, small), (images, small, epochs)]


def train(model: keras.Model, config: Config, data: labkit.Data, run: labkit.Run) -> None:
    """Fit `model`: first on small images, then on whole ones, under one falling learning rate."""
    recipe = RECIPES[config.budget]
    compile_with(recipe, model, config.epochs * -(-len(data.train) // recipe.batch_size))
    labels = one_hot(data.train.y)
    validated = (to_input(data.validation.x), one_hot(data.validation.y))
    checkpoints = run.checkpoints(model)
    small = recipe.small_epochs(config.epochs)
    for images, first, last in stages(data.train.x, small, config.epochs):
        first = max(first, run.first_epoch)
        if first >= last:  # done before the run was interrupted
            continue
        model.fit(
            alternating(images, labels, recipe, config.seed, first),
            validation_data=validated if len(data.validation) else None,
            epochs=last,
            initial_epoch=first,
            shuffle=False,  # the batches are shuffled, in an order that a resumed run repeats
            callbacks=[checkpoints],
            verbose=2 if config.smoke else "auto",
        )


def evaluate(
    model: keras.Model, config: Config, data: labkit.Data
) -> tuple[keras.Model, dict[str, float]]:
    """The network with the last epoch's weights, and its figures.

    It is built in float32: evaluation doesn't depend on the precision of the training.
    """
    labkit.prepare(config.seed)
    recipe = RECIPES[config.budget]
    last = build(data.train.x, recipe)
    last.set_weights(model.get_weights())
    small = recipe.small_epochs(config.epochs)
    flops = (config.epochs - small) * forward_flops(last)
    flops += small * forward_flops(last, 24) if small else 0
    petaflop = 3 * flops * len(data.train) / 1e15
    return last, {"training_petaflop": petaflop} | measure(last, data)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    recipe = RECIPES[config.budget]
    data = load(config.data, config.smoke, recipe.validation_share)
    config = replace(
        config,
        epochs=2 if config.smoke else config.epochs or recipe.epochs,
        precision=labkit.fast_precision() if config.precision == "auto" else config.precision,
    )
    name = f"fast_cnn-muon-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            run.track(mlflow.log_params, {f"recipe_{k}": v for k, v in asdict(recipe).items()})
            labkit.prepare(config.seed, config.precision)
            model = build(data.train.x, recipe)
            train(model, config, data, run)
            seconds = run.seconds
            last, metrics = evaluate(model, config, data)
            run.log_metrics({"train_seconds": seconds} | metrics)
            last.save(run.folder / "model.keras")
            run.save_figure(
                "learning_curves", figures.learning_curves(run.history, ["loss", "accuracy"])
            )
            run.save_report(
                f"fast-cnn on CIFAR-10, budget {config.budget}",
                f"{table(run.metrics)}\nThe last epoch's weights are tested: the number of epochs "
                "was fixed beforehand, and the learning rate ends at its lowest.",
            )
    print(table(run.metrics))
    return run.metrics


if __name__ == "__main__":
    main()
