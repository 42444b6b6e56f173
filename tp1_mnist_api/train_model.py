"""Train a digit classifier on MNIST, track it, and export it for the API.

Which accuracy does the hand-out's dense network really reach, and how far do augmentation and
convolutions take the same input, 784 grey values?

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
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

import numpy as np
from filelock import FileLock

import labkit
from labkit import figures
from labkit.results import accuracy_interval
from tp1_mnist_api.augmentation import random_warp
from tp1_mnist_api.export import export_for_serving, sha256_of
from tp1_mnist_api.models import BUILDERS, average_over_shifts

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")

REGISTERED_NAME = "mnist"


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    model: Literal["dense", "dense-strong", "cnn", "compact"] = "cnn"
    """The hand-out's network, a strong dense one, a convolutional one, or a small one to serve."""
    epochs: int | None = None
    """Passes over the training images, 1 or more; the model's own number if not given."""
    split: Literal["auto", "last", "stratified"] = "auto"
    """Validation images: the last 10 % as in the hand-out (auto for dense) or a random stratified
    10 % (auto for the others), which is the harder and fairer one."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: float32 for dense, the machine's faster one for the others."""
    seed: int = 0
    """Seed of the weights, the dropout, the order and the augmentation; never of the split."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""
    smoke: bool = False
    """One epoch on 512 images, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seed=0)


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


# --- Data ----------------------------------------------------------------------------------------


def to_input(images: np.ndarray) -> np.ndarray:
    """Grey values 0..255, (n, 28, 28), to the models' input: (n, 784) float32 in 0..1."""
    return images.reshape(len(images), 784).astype(np.float32) / 255  # whole arrays, no loop


def validation_indices(labels: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation images: the same for every seed.

    `last` is Keras' `validation_split=0.1`, which takes the end of the arrays; in MNIST these
    images are easier than the rest. `stratified` draws 10 % of each class at random.
    """
    if split == "last":
        border = int(len(labels) * 0.9)
        return np.arange(border), np.arange(border, len(labels))
    from sklearn.model_selection import train_test_split

    return tuple(
        train_test_split(np.arange(len(labels)), test_size=0.1, stratify=labels, random_state=0)
    )


def floors(data: labkit.Images, training: np.ndarray) -> dict[str, float]:
    """Test accuracies that a network must beat: the most frequent class, a linear model."""
    from sklearn.linear_model import LogisticRegression

    majority = np.bincount(data.y_train[training]).argmax()
    linear = LogisticRegression(max_iter=200, tol=1e-3)
    linear.fit(to_input(data.x_train[training]), data.y_train[training])
    return {
        "floor_majority": float(np.mean(data.y_test == majority)),
        "floor_logistic_regression": linear.score(to_input(data.x_test), data.y_test),
    }


# --- Training ------------------------------------------------------------------------------------


def train(
    config: Config,
    recipe: Recipe,
    data: labkit.Images,
    training: np.ndarray,
    validation: np.ndarray,
    run: labkit.Run,
) -> keras.Model:
    """Fit the configured model and return it in float32, ready for evaluation and export.

    `training` and `validation` are indices into `data.x_train`; `run` says at which epoch to begin.
    """
    labkit.prepare(config.seed, config.precision)
    model = BUILDERS[config.model](recipe.dropout_rate)
    if recipe.peak_learning_rate is None:
        optimizer = keras.optimizers.Adam()
    else:
        steps = config.epochs * -(-len(training) // recipe.batch_size)
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
        steps_per_execution=10,  # less Python between the steps
        jit_compile=False,  # XLA is slower than oneDNN on a CPU
    )

    def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if recipe.shift is not None:
            images = random_warp(images, rng, shift=recipe.shift, elastic=recipe.elastic)
        return to_input(images)

    model.fit(
        batches.Batches(
            data.x_train[training], data.y_train[training],
            recipe.batch_size, config.seed, run.first_epoch, augment,
        ),
        validation_data=(to_input(data.x_train[validation]), data.y_train[validation]),
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


def score(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1 of `model` on `inputs` (n, 784) in 0..1."""
    probabilities = model.predict(inputs, batch_size=500, verbose=0)
    losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    return float(keras.ops.mean(losses)), float(accuracy)


# --- Tracking, main ----------------------------------------------------------------------


def beats(challenger: dict[str, str], champion: dict[str, str]) -> bool:
    """Whether a model with tags `challenger` replaces the one with tags `champion`.

    It does when its validation accuracy is higher on the same validation images, or when it is
    the first that saw real data. The test set takes no part in the choice.
    """
    if challenger["validation_set"] == champion.get("validation_set"):
        return float(challenger["validation_accuracy"]) > float(champion["validation_accuracy"])
    was_sample = champion.get("validation_set", "").startswith("sample")
    return was_sample and not challenger["validation_set"].startswith("sample")


def log_to_mlflow(model: keras.Model, example: np.ndarray, tags: dict[str, str]) -> bool:
    """The hand-out's MLflow part: log the model with its signature, register it, name a champion.

    `example` is (n, 784) in 0..1; `tags` are those of `beats`. Returns whether the alias
    `champion` moved to the new version.
    """
    logged = mlflow.tensorflow.log_model(
        model,
        name="mnist-model",
        signature=mlflow.models.infer_signature(example, model.predict(example, verbose=0)),
        input_example=example,
        pip_requirements=["tensorflow", "keras", "numpy"],  # inferring them takes 5 s
        registered_model_name=REGISTERED_NAME,
    )
    client, version = mlflow.MlflowClient(), logged.registered_model_version
    for key, value in tags.items():
        client.set_model_version_tag(REGISTERED_NAME, version, key, value)
    aliases = client.get_registered_model(REGISTERED_NAME).aliases
    if "champion" in aliases:
        champion = client.get_model_version(REGISTERED_NAME, aliases["champion"])
        if not beats(tags, champion.tags):
            print(f"Registered as version {version}; version {champion.version} stays champion.")
            return False
    client.set_registered_model_alias(REGISTERED_NAME, "champion", version)
    print(f"Registered as version {version}, the new champion.")
    return True


def report(config: Config, recipe: Recipe, metrics: dict[str, float], source: str) -> str:
    """The run's `report.md`: result beside its floors, and why the model was trained this way."""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    return (
        f"# {config.model} on MNIST\n\nData: {source}. Validation images: {config.split}. "
        f"Seed {config.seed}.\n\n| metric | value |\n| --- | --- |\n{rows}\n\n"
        f"Recipe: {asdict(recipe)}. The last epoch's weights are tested: the number of epochs was "
        "fixed beforehand, on validation images, and the learning rate ends at its lowest.\n"
    )


def command(config: Config) -> str:
    """The command line that trains this model again: model, seed and all that is no default."""
    words = ["python tp1_mnist_api/train_model.py"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in ("model", "seed") or (value != field.default and field.name != "resume"):
            words.append(f"--{field.name}" if value is True else f"--{field.name} {value}")
    return " ".join(words)


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the test accuracy beside its floors and return `metrics`."""
    print(f"Test accuracy: {metrics['test_accuracy']:.4f}")
    for name, value in metrics.items():
        if name.startswith("floor_"):
            print(f"  floor, {name.removeprefix('floor_').replace('_', ' ')}: {value:.4f}")
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track, export; return the final metrics."""
    asked = labkit.parse(Config, argv)
    config, recipe = asked, RECIPES[asked.model]
    is_dense = config.model == "dense"
    precision = "float32" if is_dense else labkit.fast_precision()
    config = replace(
        config,
        epochs=1 if config.smoke else config.epochs or recipe.epochs,
        split=("last" if is_dense else "stratified") if config.split == "auto" else config.split,
        precision=precision if config.precision == "auto" else config.precision,
    )
    data = labkit.load_mnist(config.data)
    if config.smoke:
        data = data.head(512, 256)
    training, validation = validation_indices(data.y_train, config.split)
    optimizer = "adamw" if recipe.peak_learning_rate else "adam"
    name = f"{config.model.replace('-', '_')}-{optimizer}-crossentropy-s{config.seed}"

    with labkit.start_run(__file__, config, data.source, name) as run:
        if run.is_finished:
            return show(run.metrics)
        run.track(mlflow.log_params, {k: v for k, v in asdict(recipe).items() if k != "epochs"})
        model = train(config, recipe, data, training, validation, run)
        metrics = {"train_seconds": run.seconds}

        for part, images, labels in (
            ("train", data.x_train[training[:10000]], data.y_train[training[:10000]]),
            ("validation", data.x_train[validation], data.y_train[validation]),
            ("test", data.x_test, data.y_test),  # the one time that test images are looked at
        ):
            loss, accuracy = score(model, to_input(images), labels)
            metrics |= {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        metrics |= floors(data, training)
        run.log_metrics(metrics)

        run.save_figure(
            "learning_curves", figures.learning_curves(run.history, ["loss", "accuracy"])
        )
        run.save_text("report.md", report(config, recipe, metrics, data.source))
        model.save(run.folder / "model.keras")
        x_validation = to_input(data.x_train[validation])
        difference = export_for_serving(model, run.folder / "mnist.tflite", x_validation[:1000])
        card = {
            "sha256": sha256_of(run.folder / "mnist.tflite"),
            "model": config.model,
            "parameters": model.count_params(),
            "data_source": data.source,
            "command": command(asked),
            "epochs": config.epochs,
            "split": config.split,
            "test_accuracy": metrics["test_accuracy"],
            "test_interval_95": accuracy_interval(
                round(metrics["test_accuracy"] * len(data.y_test)), len(data.y_test)
            ),
            "commit": run.state["commit"],
            "run": run.state["run_id"],
            "largest_difference_to_keras": difference,
        }
        run.save_text("mnist.json", json.dumps(card, indent=1))
        tags = {
            "validation_set": f"{data.source} {config.split} {len(validation)}",
            "validation_accuracy": f"{metrics['validation_accuracy']:.6f}",
        }
        if not config.smoke:
            champion = labkit.home() / "outputs" / "champion"  # what `make serve` serves
            champion.mkdir(exist_ok=True)
            with FileLock(champion / "lock"):  # two trainings may end at once
                if run.track(log_to_mlflow, model, x_validation[:5], tags):
                    for file in ("mnist.tflite", "mnist.json"):
                        shutil.copy2(run.folder / file, champion / file)

    return show(metrics)


if __name__ == "__main__":
    main()
