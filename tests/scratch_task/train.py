"""Does a small network find out which points lie in a ring?

python tp6_real_world/scratch/train.py            # seconds on two cores
python tp6_real_world/scratch/train.py --smoke    # everything once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import figures
from labkit.results import beside_floors
from tp6_real_world.scratch.data import load

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp6_real_world.scratch.model")

SHOWN = {"test_accuracy": "test accuracy"}


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training."""

    width: int = 16
    """Hidden units, 1 or more."""
    epochs: int = 20
    """Passes over the training points, 1 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1)


def train(config: Config, data: labkit.Data, run: labkit.Run) -> keras.Model:
    """Fit by binary cross-entropy; the weights of the lowest validation loss."""
    labkit.prepare(config.seed)
    model = models.build(config.width)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.fit(
        batches.Batches(data.train.x, data.train.y, 32, config.seed, run.first_epoch),
        validation_data=(data.validation.x, data.validation.y),
        epochs=2 if config.smoke else config.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.keeps_best("val_loss", "min"), run.checkpoints(model)],
        verbose=0,
    )
    model.load_weights(run.best_file)
    return model


def evaluate(model: keras.Model, data: labkit.Data) -> dict[str, float]:
    """Accuracies, and that of the most frequent label."""
    metrics = {}
    for name, part in (("validation", data.validation), ("test", data.test)):
        inside = model.predict(part.x, verbose=0)[:, 0] > 0.5
        metrics[f"{name}_accuracy"] = float(np.mean(inside == part.y))
    majority = np.round(data.train.y.mean())
    metrics["floor_majority"] = float(np.mean(data.test.y == majority))
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test points, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke)
    name = f"dense{config.width}-adam-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            model = train(config, data, run)
            run.log_metrics({"train_seconds": run.seconds, **evaluate(model, data)})
            curves = figures.learning_curves(run.history, ["loss", "accuracy"])
            run.save_figure("learning_curves", curves)
            run.save_report(name, beside_floors(run.metrics, SHOWN))
            model.save(run.folder / "model.keras")
    print(beside_floors(run.metrics, SHOWN))
    return run.metrics


if __name__ == "__main__":
    main()
