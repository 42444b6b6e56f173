"""Is this signature the writer's own, or a skilled forgery, when the network never saw the writer?

    python tp6_real_world/signature_verification/train.py                     # method 2, fold 0
    python tp6_real_world/signature_verification/train.py --method siamese    # method 1
    python tp6_real_world/signature_verification/train.py --seed 3            # fold 3
    python tp6_real_world/signature_verification/train.py --smoke             # everything once
    python tp6_real_world/signature_verification/train.py --data-dir mine     # your own signatures

Method 1, `siamese`, is the hint of the hand-out: pairs, contrastive loss, a vector. Method 2,
`triplet`, learns a map that is compared place by place, from hard triplets with skilled forgeries.
Both see the same pictures in the same order, and are judged alike: writers of the fold that is
tested are in no other part, and nothing is chosen on them. Seeds 0 to 4 test each writer once.
A fold took ten minutes on two slow cores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from labkit.results import beside_floors
from tp6_real_world.signature_verification.data import FOLDS, describe, load

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
augmentation = labkit.lazy("tp6_real_world.signature_verification.augmentation")
models = labkit.lazy("tp6_real_world.signature_verification.model")
verification = labkit.lazy("tp6_real_world.signature_verification.verification")
floors = labkit.lazy("tp6_real_world.signature_verification.floors")

EACH = 4
"""Genuine signatures of each writer in a batch, and as many forged ones."""
WRITERS = 8
"""In a batch, which has 64 signatures."""
STEPS = 100
"""Batches of what is called an epoch."""
LEARNING_RATE = 2e-3
CALIBRATED = tuple(range(1, 11))
"""Numbers of references for which a threshold is chosen."""
SHOWN = {
    "eer_1": "EER, 1 reference", "eer_5": "5", "eer_10": "10",
    "eer_10_per_writer": "10, threshold per writer", "eer_10_random": "10, random forgeries",
}  # fmt: skip


@dataclass(frozen=True)
class Config(labkit.Settings):
    """Settings of one training. Of `--seed` the remainder by five is the fold that is tested."""

    method: Literal["siamese", "triplet"] = "triplet"
    """siamese: contrastive loss on pairs; triplet: hard triplets with skilled forgeries."""
    encoder: Literal["auto", "map", "dense"] = "auto"
    """map: features compared place by place; dense: one vector; auto: dense for siamese."""
    augmentation: Literal["writers", "signatures", "none"] = "writers"
    """writers: a writer's signatures share a strong warp; signatures: each its own small one."""
    width: int = 16
    """Filters of the first convolutions, 1 or more; the last ones have four times as many."""
    epochs: int = 10
    """Of 100 batches of 64 signatures, 1 or more."""
    data_dir: Path | None = None
    """Your own signatures: <writer>/genuine/ and <writer>/forged/, or CEDAR's layout."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, width=1)

    @property
    def kind(self) -> Literal["map", "dense"]:
        """The encoder's kind."""
        if self.encoder == "auto":
            return "dense" if self.method == "siamese" else "map"
        return self.encoder


def pairs_of(x: np.ndarray, writers: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Pairs from a batch of equal shares of writers, each first genuine, then forged, as many.

    Each genuine signature is in one pair, in turn with the writer's next one, the forgery in its
    place, the next one again, and the genuine signature there of the next writer: as many of one
    hand as of two. Returns ((n, h, w, 1), (n, h, w, 1)) and (n, 1), 1 for two hands.
    """
    grouped = x.reshape(writers, -1, *x.shape[1:])
    genuine, forged = np.split(grouped, 2, axis=1)
    second = np.roll(genuine, -1, axis=1)
    second[:, 1::4] = forged[:, 1::4]
    second[:, 3::4] = np.roll(genuine, -1, axis=0)[:, 3::4]
    different = np.broadcast_to(np.arange(genuine.shape[1]) % 2, genuine.shape[:2])
    first, second = (each.reshape(-1, *x.shape[1:]) for each in (genuine, second))
    return (first, second), different.reshape(-1, 1).astype(np.float32)


def train(config: Config, data: labkit.Data, run: labkit.Run) -> keras.Model:
    """Fit by the configured method; return the encoder with the last weights."""
    labkit.prepare(config.seed)
    encoder = models.build_encoder(config.kind, 4 if config.smoke else config.width)
    epochs, steps = (2, 2) if config.smoke else (config.epochs, STEPS)
    known = {
        writer: [np.flatnonzero((data.train.writers == writer) & (data.train.y == forged))
                 for forged in (0, 1)]
        for writer in np.unique(data.train.writers)
    }  # fmt: skip
    # No writer is twice in a batch: a stranger would be of the same hand.
    writers, each = min(3 if config.smoke else WRITERS, len(known)), 3 if config.smoke else EACH

    def draw(rng: np.random.Generator) -> np.ndarray:
        """Rows of an epoch: in each batch some writers, of each some genuine, then some forged."""
        return np.concatenate([
            rng.choice(rows, each, replace=len(rows) < each)
            for _ in range(steps)
            for writer in rng.permutation(list(known))[:writers]
            for rows in known[writer]
        ])  # fmt: skip

    def prepared(x: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple:
        x = augmentation.augment(x, truth[:, 0], rng, config.augmentation)
        return pairs_of(x, writers) if config.method == "siamese" else (x, truth)

    sequence = batches.Batches(
        data.train.x, np.stack([data.train.writers, data.train.hands], axis=1),
        writers * 2 * each, config.seed, run.first_epoch, transform=prepared, draw=draw,
    )  # fmt: skip
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 10, int(0.9 * epochs * steps), alpha=0.01,
        warmup_target=LEARNING_RATE, warmup_steps=int(0.1 * epochs * steps),
    )  # fmt: skip
    siamese = config.method == "siamese"
    model = models.build_siamese(encoder) if siamese else encoder
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4),
        models.contrastive_loss if siamese else models.triplet_loss,
        jit_compile=False,
    )
    model.fit(
        sequence,
        epochs=epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[run.checkpoints(model)],
        verbose=2 if config.smoke else "auto",
    )
    return encoder


def calibrate(encoder: keras.Model, data: labkit.Data) -> dict[str, dict[str, float]]:
    """Thresholds and their error rates on validation writers, by number of references.

    `novelty` is the distance to the nearest training signature that 1 % of those of validation
    writers exceed.
    """
    features = models.features_of(encoder, data.validation.x)
    numbers = verification.usable(data.validation, CALIBRATED)
    found = {}
    for number in numbers:
        claims = verification.claims(features, data.validation, number)
        threshold = verification.threshold_of(claims)
        rates = verification.rates_at(claims, threshold)
        found[str(number)] = {"threshold": threshold, "eer": verification.pooled(claims), **rates}
    nearest = verification.distances(features, models.features_of(encoder, data.train.x)).min(
        axis=1
    )
    return found | {"novelty": {"distance": float(np.quantile(nearest, 0.99))}}


def evaluate(
    encoder: keras.Model, data: labkit.Data, calibration: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Error rates on test writers, at thresholds chosen on validation writers; floors beside."""
    thresholds = {
        number: calibration[str(number)]["threshold"]
        for number in verification.REFERENCES
        if str(number) in calibration
    }
    metrics = {f"threshold_{number}": threshold for number, threshold in thresholds.items()}
    metrics |= {f"validation_eer_{number}": calibration[str(number)]["eer"]
                for number in thresholds}  # fmt: skip
    metrics |= verification.measure(models.features_of(encoder, data.test.x), data.test, thresholds)
    return metrics | floors.floors(data, list(thresholds)) | floors.shortcuts(data)


def result_in_words(metrics: dict[str, float], method: str) -> str:
    """The test result beside the floors, in Markdown."""
    floors_shown = {
        name: value
        for name, value in metrics.items()
        if not name.startswith("floor_") or name.endswith(tuple(SHOWN))
    }
    return beside_floors(floors_shown, SHOWN, method)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test writers, track; return the final metrics."""
    config = labkit.parse(Config, argv)
    fold = config.seed % FOLDS
    data = load(config.data, config.smoke, fold, config.data_dir)
    for name in ("train", "validation", "test"):
        print(f"Fold {fold}, {name}: {describe(getattr(data, name))}")
    name = f"{config.kind}{config.width}-adamw-{config.method}-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            encoder = train(config, data, run)
            run.log_metrics({"train_seconds": run.seconds})
            encoder.save(run.folder / "model.keras")
            calibration = calibrate(encoder, data)
            run.save_text("calibration.json", json.dumps(calibration, indent=1))
            features = models.features_of(encoder, data.train.x).astype(np.float16)
            np.savez_compressed(run.folder / "training_features.npz", features=features)
            metrics = evaluate(encoder, data, calibration)
            run.log_metrics({"parameters": encoder.count_params(), **metrics})
            run.save_figure("learning_curve", figures.learning_curves(run.history, ["loss"]))
            run.save_report(name, result_in_words(run.metrics, config.method))
    print(result_in_words(run.metrics, config.method))
    return run.metrics


if __name__ == "__main__":
    main()
