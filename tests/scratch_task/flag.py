"""Is this point inside the ring, as the network sees it?

python tp6_real_world/scratch/flag.py --x 0.5 --y 0.1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit

keras = labkit.lazy("keras")


@dataclass(frozen=True)
class Config:
    """A point."""

    x: float
    """From -1 to 1."""
    y: float
    """From -1 to 1."""


def main(argv: Sequence[str] | None = None) -> None:
    """Ask the last trained network."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run("tp6_real_world.scratch.train")
    model = keras.saving.load_model(trained.folder / "model.keras")
    probability = model.predict(np.array([[config.x, config.y]], np.float32), verbose=0)[0, 0]
    print(f"inside with probability {probability:.2f}")


if __name__ == "__main__":
    main()
