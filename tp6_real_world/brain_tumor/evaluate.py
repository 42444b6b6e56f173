"""Examine a trained U-Net: which patients does it fail, which slices, and what does one voxel do?

    python tp6_real_world/brain_tumor/evaluate.py              # the last trained network
    python tp6_real_world/brain_tumor/evaluate.py --run ID     # MLflow run id or folder name

Nothing is trained or chosen here: thresholds are the training's, and so are the test figures. New
are the failures, and a stress: one voxel, twice as bright as all others, in the corner of every
test volume, far from the head. Figures land in the run's folder and beside the training in MLflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import labkit
from labkit.results import markdown_table
from tp6_real_world.brain_tumor import metrics as measures
from tp6_real_world.brain_tumor.data import Slices, load
from tp6_real_world.brain_tumor.preparation import with_hot_voxel
from tp6_real_world.brain_tumor.segmentation import inputs_of, probabilities_of, score

gallery = labkit.lazy("tp6_real_world.brain_tumor.gallery")

EXAMINES = ("tp6_real_world.brain_tumor.train",)


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: the real set or, without it, phantoms; real: real or an error; sample: phantoms."""
    seed: int = 0
    """Nothing is random here; the flag is that of every script."""
    smoke: bool = False
    """Few slices, as in training with --smoke."""


def patients_table(part: Slices, predicted: np.ndarray) -> str:
    """Each test patient, the worst first: Dice, slices, tumour pixels found and missed."""
    dice, _ = measures.overlap(predicted, part.y, part.groups)
    groups = np.unique(part.groups)
    rows = []
    for index in np.argsort(np.nan_to_num(dice, nan=2.0)):
        own = part.groups == groups[index]
        truth, found = part.y[own], predicted[own]
        counts = (own.sum(), truth.sum(), (truth & ~found).sum(), (found & ~truth).sum())
        rows.append([part.names[own][0], f"{dice[index]:.3f}", *(f"{each:,}" for each in counts)])
    header = ["patient", "Dice", "slices", "tumour pixels", "missed", "false"]
    return markdown_table(header, rows)


def save_figures(run: labkit.Run, part: Slices, probabilities: np.ndarray, trained: dict) -> None:
    """The gallery of probabilities (n, size, size), with the thresholds that `trained` holds."""
    predicted, cut = probabilities > trained["threshold"], trained["threshold_slice"]
    scores, truth = measures.slice_scores(probabilities), part.has_tumour
    floors = {
        name: trained[f"floor_{name}"]
        for name in ("threshold", "gradient_boosting")
        if f"floor_{name}" in trained
    }
    interval = (trained["dice_low"], trained["dice_high"])
    text = f"U-Net, AUROC {trained['slice_auroc']:.3f}"
    for name, figure in {
        "worst_patients": gallery.patients_figure(part, predicted),
        "alarms": gallery.false_alarms_figure(part, predicted, scores, cut),
        "dice_of_patients": gallery.dice_figure(part, predicted, floors, interval),
        "slices_roc": gallery.roc_figure(scores, truth, cut, text),
    }.items():
        run.save_figure(name, figure)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    was, chosen = trained.config, trained.metrics
    smoke = config.smoke or was["smoke"]
    data = load(config.data, smoke, was["dataset"], was["size"], was["split"])
    test = data.test
    labkit.prepare(config.seed)
    model = labkit.load_model(trained.folder / "model.keras", compiled=False)
    model.compile(jit_compile=False)  # it is only asked
    policy = (was["normalization"], was["neighbours"], was["sequences"])
    with labkit.examination(__file__, config, trained, data.source) as run:
        probabilities = probabilities_of(model, inputs_of(test, *policy))
        metrics = score(probabilities, test, chosen)
        hot = replace(test, x=with_hot_voxel(test.x, test.groups))
        predicted = probabilities_of(model, inputs_of(hot, *policy)) > chosen["threshold"]
        metrics["dice_hot_voxel"] = np.nanmean(measures.overlap(predicted, test.y, test.groups)[0])
        run.log_metrics(metrics)
        save_figures(run, test, probabilities, chosen)
        text = (
            f"{patients_table(test, probabilities > chosen['threshold'])}\n"
            f"Mean Dice {metrics['dice']:.4f} [{metrics['dice_low']:.3f}, "
            f"{metrics['dice_high']:.3f}]; with one bright voxel in every volume's corner "
            f"{metrics['dice_hot_voxel']:.4f}. AUROC of slices {metrics['slice_auroc']:.4f}.\n"
        )
        print(f"\n{text}")
        run.save_report(f"{trained.state['name']}, examined", text)
    return run.metrics


if __name__ == "__main__":
    main()
