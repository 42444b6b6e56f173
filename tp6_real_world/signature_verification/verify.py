"""Did the writer of these references sign this, too?

    python tp6_real_world/signature_verification/verify.py reference1.png reference2.jpg query.png

The last picture is the query, the ones before it are the writer's genuine signatures: photographs
or scans, of any size, dark ink on bright paper. The answer is the last training's, with the error
rates that its threshold had for writers that no training saw. It is no expert's opinion.

Exit codes: 0 accepted, 1 refused, 2 a picture that can't be judged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import labkit
from labkit import figures
from labkit.arguments import fail
from labkit.files import DataError
from tp6_real_world.signature_verification.data import read_picture

ink = labkit.lazy("tp6_real_world.signature_verification.ink")
models = labkit.lazy("tp6_real_world.signature_verification.model")
verification = labkit.lazy("tp6_real_world.signature_verification.verification")

TRAINING = "tp6_real_world.signature_verification.train"


@dataclass(frozen=True)
class Config:
    """What to compare."""

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Genuine signatures of one writer, one or more, then the query."""
    run: str = "latest"
    """The training to ask: latest, the beginning of an MLflow run id, or a folder name."""
    picture: Path = Path("verified.png")
    """Where to write what the network compared."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        if len(self.pictures) < 2:
            raise ValueError(
                f"PICTURES must be 2 or more, references and a query, got {len(self.pictures)}"
            )


def canvas_of(path: Path) -> np.ndarray:
    """A picture file as the network sees it; exit code 2 naming what is wrong with it."""
    try:
        return ink.prepare(read_picture(path))
    except DataError as error:
        fail(str(error))
    except ink.NoSignatureError as error:
        fail(f"{path}: {error}")


def compared_figure(
    canvases: np.ndarray, names: list[str], features: np.ndarray, title: str
) -> figures.Figure:
    """References and query as the network sees them; last, where query and nearest differ."""
    apart = verification.distances(features[-1:], features[:-1])[0]
    places = (features[-1] - features[:-1][apart.argmin()]) ** 2
    if places.size % (8 * 16) == 0:  # a map of features, compared place by place
        weight = places.reshape(8, 16, -1).sum(axis=-1)
        difference = np.kron(weight / weight.max(), np.ones((8, 8)))
        canvases = np.concatenate([canvases, 255 * difference[np.newaxis]])
        names = [*names, f"dark: differs from {names[apart.argmin()]}"]
    figure = figures.image_grid(canvases, names, columns=min(4, len(canvases)))
    figure.suptitle(title)
    return figure


def answer_of(
    config: Config, features: np.ndarray, calibration: dict[str, dict[str, float]], source: str
) -> tuple[bool, str]:
    """Whether the query is accepted, and the sentences that say so and how often that is wrong."""
    count = len(features) - 1
    usual = verification.own_distance(verification.distances(features[:-1], features[:-1]))
    score = float(verification.distances(features[-1:], features[:-1]).mean() - usual)
    number = max(int(key) for key in calibration if key.isdigit() and int(key) <= count)
    rates = calibration[str(number)]
    accepted = score <= rates["threshold"]
    return accepted, (
        f"{config.pictures[-1]}: {'accepted' if accepted else 'refused'}, score {score:.3f}, limit "
        f"{rates['threshold']:.3f}\n"
        f"On writers that were not trained on ({source}), this limit refused "
        f"{100 * rates['frr']:.1f} % of genuine signatures and accepted {100 * rates['far']:.1f} % "
        f"of skilled forgeries and {100 * rates['far_random']:.1f} % of other people's signatures, "
        f"with {number} reference{'s' if number > 1 else ''}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Judge the query, print the answer and its grounds, write the picture."""
    config = labkit.parse(Config, argv)
    canvases = np.array([canvas_of(path) for path in config.pictures])
    trained = labkit.find_run(TRAINING, config.run)
    calibration = json.loads((trained.folder / "calibration.json").read_text())
    with np.load(trained.folder / "training_features.npz", allow_pickle=False) as file:
        known = file["features"].astype(np.float32)
    features = models.features_of(models.load_encoder(trained.folder), canvases)
    accepted, answer = answer_of(config, features, calibration, trained.data_source)
    print(answer)
    if not trained.data_source.startswith("real"):
        print("note: this network was trained on generated strokes: it knows no real signature.")
    limit = calibration["novelty"]["distance"]
    for path, distance in zip(
        config.pictures, verification.distances(features, known).min(axis=1), strict=True
    ):
        if distance > limit:
            print(
                f"note: {path} looks unlike what was trained on: {distance:.2f} from the nearest "
                f"known signature, 99 % of others' are within {limit:.2f}. These error rates may "
                "not hold for it."
            )
    names = [f"reference: {path.name}" for path in config.pictures[:-1]]
    names.append(f"query: {config.pictures[-1].name}")
    figure = compared_figure(canvases, names, features, answer.splitlines()[0])
    try:
        figures.save(figure, config.picture, trained.data_source)
    except (OSError, ValueError) as error:
        fail(f"--picture {config.picture} can't be written: {error}")
    print(f"What was compared: {config.picture}")
    raise SystemExit(0 if accepted else 1)


if __name__ == "__main__":
    main()
