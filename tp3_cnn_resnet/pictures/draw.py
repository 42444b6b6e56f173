"""Draw the two sample images of style transfer: a coast at sunset, and a field of brush strokes.

    python tp3_cnn_resnet/pictures/draw.py             # writes content.jpg and style.jpg beside it

Everything is drawn by code, from fixed seeds: no photograph, nobody else's painting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import labkit
from tp3_cnn_resnet.pictures.coast import draw_content
from tp3_cnn_resnet.pictures.strokes import draw_style

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Config:
    """Where the images go."""

    folder: Path = FOLDER
    """Folder of content.jpg and style.jpg."""


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Draw and save both images; return their sizes in bytes."""
    config = labkit.parse(Config, argv)
    sizes = {}
    for name, draw in (("content", draw_content), ("style", draw_style)):
        path = config.folder / f"{name}.jpg"
        draw().save(path, quality=80)
        sizes[f"{name}_bytes"] = float(path.stat().st_size)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return sizes


if __name__ == "__main__":
    main()
