"""Examine the trained network: the same test figures, without training.

python tp6_real_world/scratch/evaluate.py --run ID
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from tp6_real_world.scratch.data import load

keras = labkit.lazy("keras")

EXAMINES = ("tp6_real_world.scratch.train",)


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: real points or, without them, a sample; real: real or an error; sample: generated."""
    seed: int = 0
    """Nothing is random here; the flag is that of every script."""
    smoke: bool = False
    """Few points, as in training with --smoke."""


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    data = load(config.data, config.smoke or trained.config["smoke"])
    labkit.prepare(config.seed)
    model = keras.saving.load_model(trained.folder / "model.keras")
    with labkit.examination(__file__, config, trained, data.source) as run:
        inside = model.predict(data.test.x, verbose=0)[:, 0] > 0.5
        run.log_metrics({"test_accuracy": np.mean(inside == data.test.y)})
        print(f"Test accuracy: {run.metrics['test_accuracy']:.4f}")
    return run.metrics


if __name__ == "__main__":
    main()
