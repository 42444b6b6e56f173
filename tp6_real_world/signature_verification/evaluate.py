"""Which claims does the trained verifier get wrong, and how sure are its error rates?

    python tp6_real_world/signature_verification/evaluate.py            # the last training
    python tp6_real_world/signature_verification/evaluate.py --run ID

The same test figures without training; their intervals, by drawing the writers anew; the DET curve
of network and floors; a map of the features; the claims that it is most wrong about. Where all five
folds of the same settings are trained, every writer is tested: their claims are pooled, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import labkit
from labkit import figures
from tp6_real_world.signature_verification.data import FOLDS, load

stats = labkit.lazy("scipy.stats")
decomposition = labkit.lazy("sklearn.decomposition")
floors = labkit.lazy("tp6_real_world.signature_verification.floors")
models = labkit.lazy("tp6_real_world.signature_verification.model")
verification = labkit.lazy("tp6_real_world.signature_verification.verification")

EXAMINES = ("tp6_real_world.signature_verification.train",)
RESAMPLINGS = 500
"""Of the writers, for an interval."""
SHARES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Error rates that are marked on the axes of the DET curve."""


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: real signatures or, without them, a sample; real: real or an error; sample."""
    data_dir: Path | None = None
    """Your own signatures, as in training."""
    seed: int = 0
    """Of the drawing of writers, 0 or more."""
    smoke: bool = False
    """Few signatures, as in training with --smoke."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, seed=0)


def by_writers(claims: verification.Claims, seed: int, count: int) -> tuple[float, float]:
    """95 % interval of the EER with one threshold: its writers drawn anew `count` times.

    Each drawing has as many writers as there are, some of them more than once. Signatures of one
    writer are alike, so drawing signatures would give too narrow an interval.
    """
    rng = np.random.default_rng(seed)
    rows = {writer: np.flatnonzero(claims.writer == writer) for writer in np.unique(claims.writer)}
    found = []
    for _ in range(count):
        drawn = np.concatenate([rows[w] for w in rng.choice(list(rows), len(rows))])
        found.append(verification.pooled(claims.of(drawn)))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def claims_of(folder: Path, data: labkit.Data, references: int) -> verification.Claims:
    """The claims of the test writers, by the encoder in a run's folder."""
    encoder = models.load_encoder(folder)
    return verification.claims(models.features_of(encoder, data.test.x), data.test, references)


def folds_of(trained: labkit.Run) -> dict[int, Path]:
    """Folders of the finished runs of the same settings and code, by the fold they tested."""
    found: dict[int, Path] = {}
    for path in sorted(trained.folder.parent.glob("*/state.json")):
        try:
            state = json.loads(path.read_text())
        except ValueError:  # cut off by a crash
            continue
        same = {**state["config"], "seed": 0} == {**trained.config, "seed": 0} and all(
            state[name] == trained.state[name] for name in ("data_source", "commit")
        )
        if same and state["status"] == "FINISHED":
            found[state["config"]["seed"] % FOLDS] = path.parent
    return found


# --- Figures -------------------------------------------------------------------------------------


def det_figure(curves: dict[str, verification.Claims]) -> figures.Figure:
    """Skilled forgeries accepted against genuine signatures refused, on normal deviates.

    Martin et al., "The DET curve in assessment of detection task performance" (Eurospeech 1997).
    """
    figure, axis = figures.subplots(size=(5.5, 5))
    for name, claims in curves.items():
        genuine = claims.score[claims.kind == verification.GENUINE]
        forged = claims.score[claims.kind == verification.SKILLED]
        _, far, frr = verification.error_rates(genuine, forged)
        inside = (far > 0) & (frr > 0)
        axis.plot(stats.norm.ppf(far[inside]), stats.norm.ppf(frr[inside]), label=name)
    ticks = stats.norm.ppf(SHARES)
    axis.plot(ticks[[0, -1]], ticks[[0, -1]], color="0.7", linewidth=0.8, zorder=0)
    labels = [f"{100 * share:g}" for share in SHARES]
    axis.set_xticks(ticks, labels)
    axis.set_yticks(ticks, labels)
    axis.set(
        xlim=(ticks[0], ticks[-1]), ylim=(ticks[0], ticks[-1]),
        xlabel="skilled forgeries accepted (%)", ylabel="genuine signatures refused (%)",
        title="DET curve; grey: equal errors",
    )  # fmt: skip
    axis.legend()
    return figure


def map_figure(features: np.ndarray, part: labkit.Part) -> figures.Figure:
    """Features of up to six test writers in their two principal directions."""
    writers = np.unique(part.writers)[:6]
    shown = np.isin(part.writers, writers)
    plane = decomposition.PCA(2, random_state=0).fit_transform(features[shown])
    figure, axis = figures.subplots(size=(6, 5))
    for index, writer in enumerate(writers):
        for forged, marker in ((0, "o"), (1, "x")):
            rows = (part.writers[shown] == writer) & (part.y[shown] == forged)
            axis.scatter(*plane[rows].T, marker=marker, s=22, color=f"C{index}")
    axis.scatter([], [], marker="o", color="0.4", label="genuine")
    axis.scatter([], [], marker="x", color="0.4", label="skilled forgery")
    axis.set(title=f"{len(writers)} test writers, a colour each: principal components of features")
    axis.legend()
    return figure


def worst_figure(
    features: np.ndarray, part: labkit.Part, claims: verification.Claims, threshold: float
) -> figures.Figure:
    """The forgeries and the genuine signatures that are most wrong, beside the writer's nearest."""
    images, titles = [], []
    for kind, sign, name in (
        (verification.SKILLED, 1, "forged"), (verification.GENUINE, -1, "genuine"),
    ):  # fmt: skip
        some = claims.of(claims.kind == kind)
        mean = {row: some.score[some.query == row].mean() for row in np.unique(some.query)}
        for row in sorted(mean, key=lambda row: sign * mean[row])[:4]:
            own = (part.writers == part.writers[row]) & (part.y == 0)
            own[row] = False
            near = np.flatnonzero(own)[
                verification.distances(features[row][np.newaxis], features[own])[0].argmin()
            ]
            images += [part.x[row], part.x[near]]
            titles += [f"{name}, score {mean[row]:.2f}", f"nearest genuine; limit {threshold:.2f}"]
    return figures.image_grid(np.array(images), titles, columns=4)


def intervals(claims: verification.Claims, name: str, seed: int, count: int) -> dict[str, float]:
    """The EER of `claims` as metrics `name`, `name`_low and `name`_high."""
    low, high = by_writers(claims, seed, count)
    return {name: verification.pooled(claims), f"{name}_low": low, f"{name}_high": high}


def all_folds(
    trained: labkit.Run, load_fold: Callable[[int], labkit.Data], numbers: list[int]
) -> dict[int, verification.Claims]:
    """Claims of all writers by number of references, each tested by the fold that didn't train
    on them; empty where a fold is missing."""
    folds = folds_of(trained)
    if len(folds) < FOLDS:
        return {}
    parts = {fold: load_fold(fold) for fold in folds}
    return {
        number: verification.joined([claims_of(folds[fold], parts[fold], number) for fold in folds])
        for number in numbers
    }


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    smoke = config.smoke or trained.config["smoke"]
    folder = config.data_dir or (trained.config["data_dir"] and Path(trained.config["data_dir"]))

    def load_fold(fold: int) -> labkit.Data:
        return load(config.data, smoke, fold, folder)

    data = load_fold(trained.config["seed"] % FOLDS)
    labkit.prepare(config.seed)
    names = [name for name in trained.metrics if name.startswith("threshold_")]
    thresholds = {int(name.rpartition("_")[2]): trained.metrics[name] for name in names}
    count = 20 if smoke else RESAMPLINGS
    with labkit.examination(__file__, config, trained, data.source) as run:
        features = models.features_of(models.load_encoder(trained.folder), data.test.x)
        metrics = verification.measure(features, data.test, thresholds)
        thresholds = {n: value for n, value in thresholds.items() if f"eer_{n}" in metrics}
        most = max(thresholds)
        for number in thresholds:
            claims = verification.claims(features, data.test, number)
            metrics |= intervals(claims, f"eer_{number}", config.seed, count)
        hog = floors.gradient_histograms(data.test.x)
        curves = {
            f"{trained.config['method']}, {most} references": claims,
            "floor: gradient histograms": verification.claims(hog, data.test, most),
        }
        for number, together in all_folds(trained, load_fold, list(thresholds)).items():
            metrics |= intervals(together, f"all_writers_eer_{number}", config.seed, count)
            curves["all five folds, one threshold"] = together
        run.log_metrics(metrics)
        run.save_figure("det", det_figure(curves))
        run.save_figure("map", map_figure(features, data.test))
        run.save_figure("worst", worst_figure(features, data.test, claims, thresholds[most]))
        for name in sorted(name for name in metrics if "eer_" in name):
            print(f"{name}: {100 * metrics[name]:.1f} %")
        print(f"Figures: {run.folder}")
    return run.metrics


if __name__ == "__main__":
    main()
