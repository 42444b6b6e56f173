"""What needs no learning, and what would be cheating: floors and shortcut tests.

Floors: distances between pixels and between histograms of oriented gradients, judged exactly as
the networks are. Shortcuts: can one picture alone, without references, be told forged from genuine
by something that is no handwriting? Then a network could, too.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import labkit
from tp6_real_world.signature_verification import verification

CELL = 8
ORIENTATIONS = 9


def gradient_histograms(x: np.ndarray) -> np.ndarray:
    """HOG of canvases (n, h, w) uint8, (n, features) float32 of length 1.

    Dalal and Triggs, "Histograms of oriented gradients for human detection" (CVPR 2005): centred
    differences, 9 unsigned orientations shared between the two nearest, cells of 8x8 pixels,
    blocks of 2x2 cells of length 1 (L2).
    """
    images = x.astype(np.float32) / 255
    down, right = np.gradient(images, axis=(1, 2))
    strength = np.hypot(down, right)
    place = np.mod(np.arctan2(down, right), np.pi) / np.pi * ORIENTATIONS  # 0 to 9
    lower = np.floor(place).astype(int)
    share = place - lower
    count, height, width = images.shape
    cells = np.empty((count, height // CELL, width // CELL, ORIENTATIONS), np.float32)
    for orientation in range(ORIENTATIONS):
        weight = np.where(lower % ORIENTATIONS == orientation, 1 - share, 0)
        weight += np.where((lower + 1) % ORIENTATIONS == orientation, share, 0)
        blocks = (weight * strength).reshape(count, height // CELL, CELL, width // CELL, CELL)
        cells[..., orientation] = blocks.sum(axis=(2, 4))
    blocks = np.concatenate(
        [cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1
    )
    blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True) + 1e-3
    return unit(blocks.reshape(count, -1))


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of (n, d) divided by their length."""
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-12)


def floors(data: labkit.Data, references: list[int]) -> dict[str, float]:
    """Error rates of both distances on the test writers, thresholds from validation writers."""
    found = {}
    for name, features_of in (
        ("pixels", lambda x: unit(x.reshape(len(x), -1).astype(np.float32))),
        ("gradient_histograms", gradient_histograms),
    ):
        features = features_of(data.validation.x)
        thresholds = {
            number: verification.threshold_of(
                verification.claims(features, data.validation, number)
            )
            for number in references
        }
        measured = verification.measure(features_of(data.test.x), data.test, thresholds)
        found |= {f"floor_{name}_{metric}": value for metric, value in measured.items()}
    return found


def shortcuts(data: labkit.Data) -> dict[str, float]:
    """Balanced accuracy, 0.5 for chance, of telling forged from genuine in one picture.

    Logistic regressions of training writers' pictures, on test writers' ones: of facts about the
    file (its `margins`, its `grey`, the histogram of its greys), and of the canvas as the network
    sees it (histogram; the height, width and amount of ink, which are part of the handwriting).
    """
    found = {}
    for name, facts_of in SHORTCUTS.items():
        train, test = facts_of(data.train), facts_of(data.test)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        guessed = model.fit(train, data.train.y).predict(test)
        found[f"shortcut_{name}"] = float(balanced_accuracy_score(data.test.y, guessed))
    return found


def canvas_histogram(part: labkit.Part) -> np.ndarray:
    """Shares of pixels in 8 steps of grey, (n, 8)."""
    steps = part.x.reshape(len(part.x), -1) // 32
    return np.stack([(steps == step).mean(axis=1) for step in range(8)], axis=1)


def extent_and_ink(part: labkit.Part) -> np.ndarray:
    """Height, width and amount of the ink on the canvas, (n, 3)."""
    ink = part.x > 127
    return np.stack(
        [ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1), ink.mean(axis=(1, 2))], axis=1
    )


SHORTCUTS = {
    "file_margins": lambda part: part.facts[:, 0:4],
    "file_mean_grey": lambda part: part.facts[:, 4:5],
    "file_paper_grey": lambda part: part.facts[:, 5:6],
    "file_histogram": lambda part: part.facts[:, 6:],
    "canvas_mean": lambda part: part.x.mean(axis=(1, 2))[:, np.newaxis],
    "canvas_histogram": canvas_histogram,
    "canvas_extent_and_ink": extent_and_ink,
}
