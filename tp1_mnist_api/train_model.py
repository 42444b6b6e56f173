"""Which accuracy does the hand-out's network really reach on MNIST, and how far can one go?

Augmentation and convolutions get the same input, 784 grey values. Each model is tracked in MLflow,
exported for the API, and may become the champion that is served.

    python tp1_mnist_api/train_model.py --model dense          # the hand-out's network, 15 s
    python tp1_mnist_api/train_model.py --model dense-strong   # no convolutions, about 4 minutes
    python tp1_mnist_api/train_model.py                        # a convolutional one, 5 minutes
    python tp1_mnist_api/train_model.py --model compact        # a small one to serve, 3 minutes
    python tp1_mnist_api/train_model.py --smoke                # everything once, in seconds

Times are for two cores. Expected on real MNIST: 97.8, 99.4 and 99.7 % of the test images; README.md
has the exact figures with their spread. Add --resume to go on after a crash.

References: Simard et al. (ICDAR 2003) for the distortions, Smith and Topin (arXiv 1708.07120) for
the one-cycle learning rate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

import labkit
from labkit import figures
from labkit.results import accuracy_interval, beside_floors
from tp1_mnist_api import registry
from tp1_mnist_api.augmentation import random_warp
from tp1_mnist_api.digits import floors, load, score, to_input
from tp1_mnist_api.export import export_for_serving, sha256_of
from tp1_mnist_api.models import BUILDERS, average_over_shifts

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    model: Literal["dense", "dense-strong", "cnn", "compact"] = "cnn"
    """The hand-out's network, a strong dense one, a convolutional one, or a small one to serve."""
    split: Literal["auto", "last", "stratified"] = "auto"
    """Validation images: the last 10 % as in the hand-out (auto for dense) or a random stratified
    10 % (auto for the others), which is the harder and fairer one."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: float32 for dense, the machine's faster one for the others."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; each figure was chosen on validation images."""

    epochs: int
    batch_size: int
    dropout_rate: float
    peak_learning_rate: float | None = None
    """Top of a one-cycle schedule with AdamW; None: Adam at its defaults, as in the hand-out."""
    shift: float | None = None
    """Largest random shift in pixels, with rotation, scaling and shear; None: no augmentation."""
    elastic: float = 0.0
    """Strength of the elastic waves, in pixels."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), multiplied by the learning rate at each step."""
    average_shifts: bool = False
    """Average the trained model over five shifted views of each image."""


RECIPES = {
    "dense": Recipe(epochs=5, batch_size=128, dropout_rate=0.2),
    "dense-strong": Recipe(
        epochs=30, batch_size=256, dropout_rate=0.1, peak_learning_rate=3e-3, shift=1.5, elastic=0.8
    ),
    "cnn": Recipe(
        epochs=28,
        batch_size=256,
        dropout_rate=0.3,
        peak_learning_rate=6e-3,
        shift=1.3,
        elastic=0.4,
        weight_decay=0.05,
        average_shifts=True,
    ),
    "compact": Recipe(
        epochs=30, batch_size=256, dropout_rate=0.1, peak_learning_rate=6e-3, shift=1.5, elastic=0.5
    ),
}


# --- Training ------------------------------------------------------------------------------------


def train(
    config: Config,
    recipe: Recipe,
    data: labkit.Data,
    run: labkit.Run,
) -> keras.Model:
    """Fit the configured model and return it in float32, ready for evaluation and export.

    `run` says at which epoch to begin.
    """
    labkit.prepare(config.seed, config.precision)
    model = BUILDERS[config.model](recipe.dropout_rate)
    steps_per_epoch = -(-len(data.train) // recipe.batch_size)
    if recipe.peak_learning_rate is None:
        optimizer = keras.optimizers.Adam()
    else:
        steps = config.epochs * steps_per_epoch
        optimizer = keras.optimizers.AdamW(
            # One cycle: up for the first fifth, then down a half cosine to almost nothing.
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=recipe.peak_learning_rate / 20,
                warmup_target=recipe.peak_learning_rate,
                warmup_steps=steps // 5,
                decay_steps=steps - steps // 5,
                alpha=0.002,
            ),
            weight_decay=recipe.weight_decay,
            beta_2=0.99,
        )
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        steps_per_execution=min(10, steps_per_epoch),  # less Python between the steps
        jit_compile=False,  # XLA is slower than oneDNN on a CPU
    )

    def augmented(
        images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if recipe.shift is not None:
            images = random_warp(images, rng, shift=recipe.shift, elastic=recipe.elastic)
        return to_input(images), labels

    model.fit(
        batches.Batches(
            data.train.x, data.train.y,
            recipe.batch_size, config.seed, run.first_epoch, augmented,
        ),
        validation_data=(to_input(data.validation.x), data.validation.y),
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip
    # Trained weights in a float32 twin: evaluation and export don't depend on the precision.
    labkit.prepare(config.seed)
    twin = BUILDERS[config.model](recipe.dropout_rate)
    twin.set_weights(model.get_weights())
    return average_over_shifts(twin) if recipe.average_shifts else twin


def evaluate(model: keras.Model, data: labkit.Data) -> dict[str, float]:
    """Loss in nats and accuracy on each part's first 10,000 images, which are all test images."""
    metrics = {}
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        loss, accuracy = score(model, to_input(part.x[:10000]), part.y[:10000])
        metrics |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
    return metrics


# --- Card, report, main --------------------------------------------------------------------------


def command(config: Config) -> str:
    """The command line that trains this model again: model, seed and all that is no default."""
    words = ["python tp1_mnist_api/train_model.py"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in ("model", "seed") or (value != field.default and field.name != "resume"):
            words.append(f"--{field.name}" if value is True else f"--{field.name} {value}")
    return " ".join(words)


def card(
    config: Config, model: keras.Model, run: labkit.Run, tested: int, difference: float
) -> dict[str, Any]:
    """What is known of the export, for `mnist.json` beside it and the API's route /model.

    `tested` is the number of test images, `difference` the export's largest one to Keras.
    """
    accuracy = run.metrics["test_accuracy"]
    return {
        "sha256": sha256_of(run.folder / "mnist.tflite"),
        "model": config.model,
        "parameters": model.count_params(),
        "data_source": run.data_source,
        "command": command(config),
        "epochs": run.config["epochs"],
        "split": run.config["split"],
        "test_accuracy": accuracy,
        "test_interval_95": accuracy_interval(round(accuracy * tested), tested),
        "commit": run.state["commit"],
        "run": run.state["run_id"],
        "largest_difference_to_keras": difference,
    }


def show(run: labkit.Run) -> dict[str, float]:
    """Print the accuracies beside the floors and return all metrics."""
    print(result_of(run))
    return run.metrics


def result_of(run: labkit.Run) -> str:
    """The table of accuracies, 0..1, for screen and report."""
    parts = ("test", "validation", "train")
    shown = {f"{part}_accuracy": f"{part} accuracy" for part in parts}
    return beside_floors(run.metrics, shown, run.config["model"])


def completed(config: Config) -> Config:
    """`config` with the model's own choices where nothing was chosen."""
    is_dense = config.model == "dense"
    precision = "float32" if is_dense else labkit.fast_precision()
    return replace(
        config,
        epochs=2 if config.smoke else config.epochs or RECIPES[config.model].epochs,
        split=("last" if is_dense else "stratified") if config.split == "auto" else config.split,
        precision=precision if config.precision == "auto" else config.precision,
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track, export; return the final metrics."""
    asked = labkit.parse(Config, argv)
    config, recipe = completed(asked), RECIPES[asked.model]
    data = load(config.data, config.smoke, config.split)
    optimizer = "adamw" if recipe.peak_learning_rate else "adam"
    name = f"{config.model.replace('-', '_')}-{optimizer}-crossentropy-s{config.seed}"

    with labkit.start_run(__file__, config, data.source, name) as run:
        if run.is_finished:
            return show(run)
        run.track(mlflow.log_params, {k: v for k, v in asdict(recipe).items() if k != "epochs"})
        model = train(config, recipe, data, run)
        run.log_metrics({"train_seconds": run.seconds} | evaluate(model, data) | floors(data))
        model.save(run.folder / "model.keras")
        curves = figures.learning_curves(run.history, ["loss", "accuracy"])
        run.save_figure("learning_curves", curves)
        run.save_report(
            f"{config.model} on MNIST",
            f"{result_of(run)}\nValidation images: {config.split}. Recipe: {asdict(recipe)}. The "
            "last epoch's weights are tested: the number of epochs was fixed beforehand, on "
            "validation images, and the learning rate ends at its lowest.",
        )
        images = to_input(data.validation.x)
        difference = export_for_serving(model, run.folder / "mnist.tflite", images[:1000])
        content = card(asked, model, run, len(data.test), difference)
        run.save_text("mnist.json", json.dumps(content, indent=1))
        if not config.smoke:
            tags = {
                "validation_set": f"{data.source} {config.split} {len(data.validation)}",
                "validation_accuracy": f"{run.metrics['validation_accuracy']:.6f}",
            }
            registry.publish(run, model, images[:5], tags)
    return show(run)


if __name__ == "__main__":
    main()
