"""How far do the hand-out's CNN, its Mini-ResNet and a modern recipe get on CIFAR-10?

    python tp3_cnn_resnet/cnn_classification.py --model cnn            # the hand-out's CNN
    python tp3_cnn_resnet/cnn_classification.py --model resnet-plain   # its Mini-ResNet
    python tp3_cnn_resnet/cnn_classification.py --model resnet         # with batch normalisation
    python tp3_cnn_resnet/cnn_classification.py --model resnet --rate falling
    python tp3_cnn_resnet/cnn_classification.py                        # fast-resnet
    python tp3_cnn_resnet/cnn_classification.py --budget long          # the same for longer
    python tp3_cnn_resnet/cnn_classification.py --budget record        # a wider one, much longer
    python tp3_cnn_resnet/cnn_classification.py --smoke                # once, in seconds

README.md has the exact figures with their spread and times on two cores. Add --resume to go on
after a crash.

References: He et al. (CVPR 2016) for residual blocks; `fast_resnet.py` names those of its recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.models import NUM_CLASSES, build_cnn, build_resnet, forward_flops, to_input

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")
fast_resnet = labkit.lazy("tp3_cnn_resnet.fast_resnet")
normalisation = labkit.lazy("tp3_cnn_resnet.normalisation")

EPOCHS, BATCH_SIZE = 10, 64
"""The hand-out's."""

VALIDATION_SHARE = 0.1
"""The hand-out's `validation_split`: the last 5,000 training images, whose order is random."""


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    model: Literal["cnn", "resnet-plain", "resnet", "fast-resnet"] = "fast-resnet"
    """The hand-out's CNN, its Mini-ResNet without and with batch normalisation, the fast recipe."""
    budget: Literal["default", "long", "record"] = "default"
    """How much time fast-resnet may take; the other models have one budget."""
    rate: Literal["constant", "falling"] = "constant"
    """Adam's learning rate in the hand-out's models: its default all the time, or a half cosine
    from there to almost nothing. fast-resnet has its own."""
    epochs: int | None = None
    """Passes over the training images, 1 or more; the model's own number if not given."""
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """Training arithmetic; auto: float32 for cnn, the machine's faster one for the others."""
    seed: int = 0
    """Seed of the weights, the order and the augmentation; never of the split."""
    data: labkit.DataChoice = "auto"
    """auto: real CIFAR-10 or, without it, a sample; real: real or an error; sample: patterns."""
    smoke: bool = False
    """One epoch on 512 images, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seed=0)
        if self.budget != "default" and self.model != "fast-resnet":
            raise ValueError(f"--budget {self.budget} is for fast-resnet, not for {self.model}")
        if self.rate != "constant" and self.model == "fast-resnet":
            raise ValueError(f"--rate {self.rate} is not for fast-resnet")


# --- Data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Images and their labels, one row each."""

    images: np.ndarray
    """(n, 32, 32, 3) uint8."""
    labels: np.ndarray
    """(n,) from 0 to 9."""

    @property
    def one_hot(self) -> np.ndarray:
        """Labels as (n, 10) float32, 1 at the class: what categorical cross-entropy takes."""
        return np.eye(NUM_CLASSES, dtype=np.float32)[self.labels]


def split(data: labkit.Images, share: float = VALIDATION_SHARE) -> tuple[Part, Part]:
    """Training part and validation part, the last `share` of the images; for every seed alike."""
    border = round(len(data.x_train) * (1 - share))
    return (
        Part(data.x_train[:border], data.y_train[:border]),
        Part(data.x_train[border:], data.y_train[border:]),
    )


def floors(training: Part, test: Part) -> dict[str, float]:
    """Test accuracies that a network must beat: the most frequent class, ridge regression."""
    from sklearn.linear_model import RidgeClassifier

    majority = np.bincount(training.labels).argmax()
    linear = RidgeClassifier(alpha=100.0)
    linear.fit(to_input(training.images).reshape(len(training.images), -1), training.labels)
    return {
        "floor_majority": float(np.mean(test.labels == majority)),
        "floor_ridge": linear.score(
            to_input(test.images).reshape(len(test.images), -1), test.labels
        ),
    }


# --- Training ------------------------------------------------------------------------------------


def train_as_handed_out(
    model: keras.Model, config: Config, training: Part, validation: Part, run: labkit.Run
) -> None:
    """The hand-out's training: Adam at its defaults, batches of 64.

    `run` keeps the weights of the best validation epoch; `model` has the last epoch's.
    """
    validated = (to_input(validation.images), validation.one_hot)
    callbacks = [run.keeps_best("val_accuracy", "max"), run.checkpoints(model)]
    if config.model == "resnet":
        some = to_input(training.images[: normalisation.RECALIBRATION_IMAGES])
        twin = build_resnet(momentum=0.0)
        callbacks.insert(0, normalisation.RecalibratedAccuracy(twin, some, validated))
    rate = 0.001  # Adam's default
    if config.rate == "falling":
        steps = config.epochs * -(-len(training.images) // BATCH_SIZE)
        rate = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            training.images, training.one_hot, BATCH_SIZE, config.seed, run.first_epoch,
            lambda images, rng: to_input(images),
        ),
        validation_data=validated,
        epochs=config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=callbacks,
        verbose=2 if config.smoke else "auto",
    )  # fmt: skip


def score(model: keras.Model, part: Part, mirrored: bool = False) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1 of `model` on `part`.

    `mirrored`: of the mean of its probabilities for an image and for its mirror image.
    """
    inputs = to_input(part.images)
    probabilities = model.predict(inputs, batch_size=500, verbose=0)
    if mirrored:
        other = model.predict(inputs[:, :, ::-1], batch_size=500, verbose=0)
        probabilities = (probabilities + other) / 2
    losses = keras.losses.sparse_categorical_crossentropy(part.labels, probabilities)
    accuracy = np.mean(probabilities.argmax(axis=1) == part.labels)
    return float(keras.ops.mean(losses)), float(accuracy)


def batchnorm_lag(history: dict[str, list[float]]) -> dict[str, float]:
    """Where the moving averages misled most, in the second half of the training.

    The epoch (from 1), its validation accuracy, and that of the same weights with recalibrated
    statistics.
    """
    accuracy, recalibrated = history["val_accuracy"], history["val_accuracy_recalibrated"]
    late = range(len(accuracy) // 2, len(accuracy))
    worst = max(late, key=lambda epoch: recalibrated[epoch] - accuracy[epoch])
    return {
        "batchnorm_lag_epoch": worst + 1,
        "batchnorm_lag_validation_accuracy": accuracy[worst],
        "batchnorm_lag_validation_accuracy_recalibrated": recalibrated[worst],
    }


def recalibration_figure(history: dict[str, list[float]]) -> figures.Figure:
    """Validation accuracy of each epoch's weights, by moving averages and by recalibration."""
    figure, axis = figures.subplots(size=(7, 4))
    epochs = np.arange(1, len(history["val_accuracy"]) + 1)
    axis.plot(
        epochs, history["val_accuracy_recalibrated"], marker="o", label="recalibrated statistics"
    )
    axis.plot(epochs, history["val_accuracy"], marker="o", label="moving averages, as always")
    axis.set(xlabel="epoch", ylabel="validation accuracy", title="The same weights, twice")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return figure


# --- Report, main --------------------------------------------------------------------------------


def report(config: Config, metrics: dict[str, float], source: str) -> str:
    """The run's `report.md`: result beside its floors, and how the weights were chosen."""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    chosen = (
        "The last epoch's weights are tested: the number of epochs was fixed beforehand, and the "
        "learning rate ends at its lowest."
        if config.model == "fast-resnet"
        else "The weights of the best validation epoch are tested; beside them, the last epoch's."
    )
    return (
        f"# {config.model} on CIFAR-10\n\nData: {source}. Seed {config.seed}, {config.epochs} "
        f"epochs, {config.precision}.\n\n| metric | value |\n| --- | --- |\n{rows}\n\n{chosen}\n"
    )


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the test accuracy beside its floors and return `metrics`."""
    print(f"Test accuracy: {metrics['test_accuracy']:.4f}")
    print(f"  with mirror images averaged: {metrics['test_accuracy_mirrored']:.4f}")
    if "test_accuracy_last_epoch" in metrics:
        best, last = metrics["best_epoch"], metrics["test_accuracy_last_epoch"]
        print(f"  best validation epoch: {best:.0f}; the last epoch's weights: {last:.4f}")
    if "batchnorm_lag_epoch" in metrics:
        print(
            f"  moving averages misled most in epoch {metrics['batchnorm_lag_epoch']:.0f}: "
            f"validation {metrics['batchnorm_lag_validation_accuracy']:.4f}, with recalibrated "
            f"statistics {metrics['batchnorm_lag_validation_accuracy_recalibrated']:.4f}"
        )
    for name, value in metrics.items():
        if name.startswith("floor_"):
            print(f"  floor, {name.removeprefix('floor_').replace('_', ' ')}: {value:.4f}")
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test images, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    data = labkit.load_cifar10(config.data)
    if config.smoke:
        data = data.head(512, 256)
    test = Part(data.x_test, data.y_test)

    labkit.prepare(config.seed)  # before anything imports Keras
    recipe = fast_resnet.RECIPES[config.budget]
    is_fast = config.model == "fast-resnet"
    training, validation = split(data, recipe.validation_share if is_fast else VALIDATION_SHARE)
    build = {
        "cnn": build_cnn,
        "resnet-plain": partial(build_resnet, momentum=None),
        "resnet": build_resnet,
        "fast-resnet": partial(fast_resnet.build, training.images, recipe),
    }[config.model]
    epochs, optimizer = (recipe.epochs, "muon") if is_fast else (EPOCHS, "adam")
    if config.rate == "falling":
        optimizer += "_falling"
    precision = "float32" if config.model == "cnn" else labkit.fast_precision()
    config = replace(
        config,
        epochs=1 if config.smoke else config.epochs or epochs,
        precision=precision if config.precision == "auto" else config.precision,
    )
    name = f"{config.model.replace('-', '_')}-{optimizer}-crossentropy-s{config.seed}"

    with labkit.start_run(__file__, config, data.source, name) as run:
        if run.is_finished:
            return show(run.metrics)
        labkit.prepare(config.seed, config.precision)
        model = build()
        if is_fast:
            run.track(mlflow.log_params, {f"recipe_{k}": v for k, v in asdict(recipe).items()})
            fast_resnet.train(model, recipe, config, training, validation, run)
        else:
            train_as_handed_out(model, config, training, validation, run)
        metrics = {"train_seconds": run.seconds}

        # Trained weights in a float32 twin: evaluation doesn't depend on the precision.
        labkit.prepare(config.seed)
        twin = build()
        twin.set_weights(model.get_weights())
        if not is_fast:
            metrics["best_epoch"] = int(np.argmax(run.history["val_accuracy"])) + 1
            metrics["test_accuracy_last_epoch"] = score(twin, test)[1]
            twin.load_weights(run.best_file)
        if "val_accuracy_recalibrated" in run.history:
            metrics |= batchnorm_lag(run.history)
            run.save_figure("settling", recalibration_figure(run.history))
        for part, examined in (
            ("train", Part(training.images[:10000], training.labels[:10000])),
            ("validation", validation),
            ("test", test),
        ):
            if len(examined.images):  # every image may have gone into the training
                loss, accuracy = score(twin, examined)
                metrics |= {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        metrics["test_accuracy_mirrored"] = score(twin, test, mirrored=True)[1]
        metrics["parameters"] = twin.count_params()
        small = recipe.small_epochs(config.epochs) if is_fast else 0
        flops = small * forward_flops(twin, 24) if small else 0
        flops += (config.epochs - small) * forward_flops(twin)
        metrics["training_petaflop"] = 3 * flops * len(training.images) / 1e15
        metrics |= floors(training, test)
        run.log_metrics(metrics)

        run.save_figure(
            "learning_curves", figures.learning_curves(run.history, ["loss", "accuracy"])
        )
        run.save_text("report.md", report(config, metrics, data.source))
        twin.save(run.folder / "model.keras")
    return show(run.metrics)


if __name__ == "__main__":
    main()
