"""Is there a tumour in this picture, and where? Overlays, and a line for each.

    python tp6_real_world/brain_tumor/detect.py slice.png scan.nii.gz
    python tp6_real_world/brain_tumor/detect.py slices/*.tif --out overlays --run ID

An exercise, no medical device: never ask it about a person. The network knows axial slices of LGG
or Decathlon patients; to a photograph, another plane or another scanner it answers as well, and
wrongly. A picture alone is normalised by itself, in training it was by its patient's volume.

PNG, JPEG and TIFF of any size; in LGG's three channels (T1, FLAIR, T1 with contrast medium) or in
grey, which should be FLAIR. NIfTI volumes, (h, w, d) or Decathlon's (h, w, d, 4): the overlay is of
the most suspicious slice, and the mask of all is written too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

import labkit
from labkit.arguments import fail
from labkit.files import DataError
from tp6_real_world.brain_tumor import decathlon, pictures
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import FLAIR, SEQUENCES, Slices
from tp6_real_world.brain_tumor.segmentation import (
    inputs_of,
    probabilities_of,
    tumour_probability,
)

nibabel = labkit.lazy("nibabel")
ndimage = labkit.lazy("scipy.ndimage")

CAVEAT = "An exercise, no medical device: these lines say nothing about a person."
LEAST_SIDE = 16
"""Pixels; a smaller picture shows no brain."""
SHOWN_SIDE = 512
"""The least side of an overlay, pixels."""


@dataclass(frozen=True)
class Config:
    """What to look at."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures or NIfTI volumes, one or more."""
    run: str = "latest"
    """The training to ask: latest, the beginning of an MLflow run id, or a folder name."""
    out: Path = Path("overlays")
    """Folder of the overlays, made if it is not there."""

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if not self.images:
            raise ValueError("IMAGES must be one or more files, got none")


def read(path: Path) -> np.ndarray:
    """A file's slices, (d, h, w, 3) float32: T1, FLAIR, T1 with contrast medium.

    What has one sequence only is taken for FLAIR and stands in for the others, as it does in LGG
    where a patient lacks one. Raises `DataError` naming the file.
    """
    if not path.is_file():
        raise DataError(f"{path}: absent, or no file")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        volume = decathlon.read_volume(path)
        if volume.ndim == 3:
            volume = np.repeat(volume[..., None], len(SEQUENCES), axis=-1)
        elif volume.shape[3] > max(decathlon.MODALITIES):
            volume = volume[..., list(decathlon.MODALITIES)]
        else:
            raise DataError(f"{path}: {volume.shape[3]} channels; 1 or Decathlon's 4 are known")
        slices = np.moveaxis(volume, 2, 0)
    else:
        slices = pictures.read_sequences(path)[None]
    if min(slices.shape[1:3]) < LEAST_SIDE:
        height, width = slices.shape[1:3]
        raise DataError(f"{path}: a side must be {LEAST_SIDE} pixels or more, got {width}x{height}")
    return slices


def ask(trained: labkit.Run, model: object, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of tumour: of each slice (d,), and of its pixels at their size (d, h, w)."""
    was = trained.config
    side = model.input_shape[1]
    square = np.stack(
        [np.stack([decathlon.shrunk(p, side) for p in np.moveaxis(s, -1, 0)], -1) for s in slices]
    )
    whose = np.zeros(len(square), int)
    part = Slices(square, np.zeros(square.shape[:3], bool), whose, whose.astype(str))
    x = inputs_of(part, was["normalization"], was["neighbours"], was["sequences"])
    pixels = probabilities_of(model, x)
    of_slices = tumour_probability(measures.slice_scores(pixels), trained.metrics)
    height, width = slices.shape[1:3]
    largest = max(height, width)
    top, left = (largest - height) // 2, (largest - width) // 2
    whole = np.empty(slices.shape[:3], np.float32)
    for place, found in enumerate(pixels):  # undo the square
        grown = Image.fromarray(found.astype(np.float32)).resize(
            (largest, largest), Image.Resampling.BILINEAR
        )
        whole[place] = np.asarray(grown)[top : top + height, left : left + width]
    return of_slices, whole


def overlay(image: np.ndarray, mask: np.ndarray, text: str) -> Image.Image:
    """FLAIR (h, w) with the mask's contour and a tint inside, enlarged, and a caption."""
    low, high = np.percentile(image, [1, 99.5])
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    shown = np.repeat(grey[..., None], 3, axis=-1)
    shown[mask] = 0.75 * shown[mask] + 0.25 * np.array([0.86, 0.15, 0.5])
    factor = max(1, -(-SHOWN_SIDE // min(image.shape)))
    large = np.kron(shown, np.ones((factor, factor, 1)))
    solid = np.kron(mask, np.ones((factor, factor), bool))
    large[solid & ~ndimage.binary_erosion(solid, iterations=2)] = (0.86, 0.15, 0.5)
    height, width = large.shape[:2]
    size = min(28, max(8, int(1.8 * width / len(text))))  # the text just fits
    canvas = Image.new("RGB", (width, height + 3 * size))
    canvas.paste(Image.fromarray((255 * large).astype(np.uint8)))
    caption = f"{text}\nAn exercise, no medical device."
    font = ImageFont.load_default(size)
    ImageDraw.Draw(canvas).text((size // 2, height), caption, "white", font)
    return canvas


def detect(trained: labkit.Run, model: object, path: Path, slices: np.ndarray, out: Path) -> float:
    """Ask about one file, write its overlay, print its line; return the highest probability."""
    of_slices, pixels = ask(trained, model, slices)
    masks = pixels > trained.metrics["threshold"]
    cut = tumour_probability(np.array(trained.metrics["threshold_slice"]), trained.metrics)
    place = int(np.argmax(of_slices))
    probability = float(of_slices[place])
    verdict = "alarm" if probability > cut else "no alarm"
    head = slices[place, ..., FLAIR]
    head = head > head.min() + 0.1 * np.ptp(head)
    share = masks[place].sum() / max(1, head.sum())
    text = f"tumour with probability {probability:.2f} ({verdict}), {share:.1%} of the head marked"
    if len(slices) > 1:
        text += f" in slice {place + 1} of {len(slices)}; alarms in {np.sum(of_slices > cut)}"
    name = path.name.removesuffix(".gz").replace(".", "_")
    file = out / f"{name}_overlay.png"
    overlay(slices[place, ..., FLAIR], masks[place], text).save(file)
    if len(slices) > 1:
        decathlon.write_mask(masks, path, out / f"{name}_mask.nii.gz")
    print(f"{path}: {text}; {file}")
    return probability


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Look at every file; return the highest probability of each, by its path."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run("tp6_real_world.brain_tumor.train", config.run)
    try:
        found = {path: read(path) for path in config.images}  # all are good, or none is looked at
        config.out.mkdir(parents=True, exist_ok=True)
    except DataError as error:
        fail(str(error))
    except OSError as error:
        fail(f"--out {config.out} can't be made a folder: {error.strerror}")
    labkit.prepare(0)
    model = labkit.load_model(trained.folder / "model.keras", compiled=False)
    model.compile(jit_compile=False)  # it is only asked
    print(CAVEAT)
    if not trained.data_source.startswith("real"):
        print("This network was trained on generated phantoms: it knows no real brain.")
    try:
        return {
            str(path): detect(trained, model, path, slices, config.out)
            for path, slices in found.items()
        }
    except OSError as error:
        fail(f"--out {config.out} can't be written: {error}")


if __name__ == "__main__":
    main()
