"""The task's figures: how they are made, what they must reach, how they are shown."""

from __future__ import annotations

from labkit.experiments import Column, Experiment, Gate, Row, table_of

SCRIPT = "tp6_real_world.scratch.train"
EXPERIMENTS = (
    Experiment(
        SCRIPT, "ring", then="tp6_real_world.scratch.evaluate",
        gates=(Gate("test_accuracy", 0.85, 0.999, above=("floor_majority",)),),
    ),
)  # fmt: skip


def accuracy() -> str:
    """Test accuracy beside its floor."""
    columns = [Column("test %", "test_accuracy", 100), Column("seconds", "train_seconds", digits=0)]
    return table_of([Row("dense network", f"{SCRIPT}.ring")], columns, "network")


TABLES = {"scratch_accuracy": accuracy}
