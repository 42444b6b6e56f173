"""The task's figures: how they are made, what they must reach, how README.md shows them."""

from __future__ import annotations

from functools import partial

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, findings, table_of
from labkit.results import markdown_table

TASK = "tp6_real_world.brain_tumor"
TRAIN, EXAMINE = f"{TASK}.train", f"{TASK}.evaluate"
ABLATION, CLASSIFY = f"{TASK}.ablation", f"{TASK}.classify"
ABOVE = ("floor_threshold", "floor_gradient_boosting")
ALARMS = tuple(f"floor_{name}_slice_auroc" for name in ("threshold", "brain_area", "middle_slice"))

EXPERIMENTS = (
    Experiment(
        TRAIN, "lgg", then=EXAMINE,
        gates=(
            Gate("dice", 0.78, 0.92, above=ABOVE),
            Gate("slice_auroc", 0.93, 0.995, above=ALARMS),  # boosting is told the slice's place
        ),
    ),
    Experiment(TRAIN, "decathlon", ("--dataset", "decathlon"), then=EXAMINE),
    Experiment(
        ABLATION, comparison=True,
        gates=(Gate("shuffled_masks/slice_auroc", 0.35, 0.65),),
    ),
    Experiment(
        CLASSIFY, seeds=tuple(range(15)), comparison=True,
        gates=(
            Gate("network/test_accuracy", 0.78, 0.95),
            Gate("random_labels/test_auroc", 0.40, 0.60),
        ),
    ),
)  # fmt: skip


def segmentation() -> str:
    """Masks and slices, beside the floors."""
    rows = [Row("U-Net, LGG", f"{TRAIN}.lgg"), Row("U-Net, Decathlon", f"{TRAIN}.decathlon")]
    if not any(results.exists(row.file) for row in rows):
        return ""
    columns = [
        Column("Dice of patients", "dice", digits=3, bold=True),
        Column("from", "dice_low", digits=3),
        Column("to", "dice_high", digits=3),
        Column("IoU", "iou", digits=3),
        Column("AUROC of slices", "slice_auroc", digits=3, bold=True),
        Column("sensitivity", "slice_sensitivity", digits=3),
        Column("specificity", "slice_specificity", digits=3),
        Column("Brier score", "slice_brier", digits=3),
        Column("Dice, hot voxel", "dice_hot_voxel", digits=3),
        Column("seconds", "train_seconds", digits=0),
    ]
    return table_of(rows, columns, main="dice")


def policies(*names: str) -> str:
    """Some configurations of the ablation beside its base."""
    if not results.exists(ABLATION):
        return ""
    labels = {
        "base": "as in train.py, smaller",
        "all_slices": "every slice as often",
        "tumour_slices": "only slices with a tumour",
        "percentile": "by percentiles of the brain",
        "minmax": "by lowest and highest voxel, the hand-out's",
        "all_sequences": "T1 and T1 with contrast medium too",
        "neighbours": "FLAIR of two neighbouring slices too",
        "cross_entropy": "cross-entropy without Dice",
        "slice_split": "split by slice: leaky",
        "shuffled_masks": "masks of other slices",
    }
    rows = [Row(labels[name], ABLATION, name) for name in ("base", *names)]
    columns = [
        Column("Dice", "dice", digits=3),
        Column("Dice, hot voxel", "dice_hot_voxel", digits=3),
        Column("AUROC of slices", "slice_auroc", digits=3),
        Column("sensitivity", "slice_sensitivity", digits=2),
        Column("specificity", "slice_specificity", digits=2),
    ]
    return table_of(rows, columns, "configuration", main="dice", floors_from=[])


def pictures() -> str:
    """Pictures and controls with intervals over groups, beside the floors."""
    if not results.exists(CLASSIFY):
        return ""
    content = results.read(CLASSIFY)
    floors = results.floors_of(
        {f"floor_{name}": value for name, value in content["floors"].items()},
        ["test_accuracy", "test_auroc"],
    )
    lines = [
        [
            f"floor: {name.replace('_', ' ')}",
            f"{100 * found['test_accuracy']:.1f}",
            "",
            "",
            f"{found['test_auroc']:.3f}" if "test_auroc" in found else "",
            "",
            "",
        ]
        for name, found in floors.items()
    ]
    for name, found in content["details"]["intervals"].items():
        lines.append(
            [
                name.replace("_", " "),
                f"{100 * found['accuracy']:.1f}",
                f"{100 * found['accuracy_low']:.1f} to {100 * found['accuracy_high']:.1f}",
                "" if name == "random_labels" else f"{100 * found['committee_accuracy']:.1f}",
                f"{found['auroc']:.3f}",
                f"{found['auroc_low']:.3f} to {found['auroc_high']:.3f}",
                f"{found['sensitivity_at_specificity_0.9']:.3f}",
            ]
        )
    header = [
        "",
        "right %",
        "95 %",
        "committee %",
        "AUROC",
        "95 %",
        "sensitivity at specificity 0.9",
    ]
    return markdown_table(header, lines)


def told(file: str) -> str:
    """What a comparison concluded, nothing before it has been run."""
    return findings(file) if results.exists(file) else ""


TABLES = {
    "brain_segmentation": segmentation,
    "brain_sampling": partial(policies, "all_slices", "tumour_slices"),
    "brain_normalization": partial(policies, "percentile", "minmax"),
    "brain_channels": partial(policies, "all_sequences", "neighbours"),
    "brain_loss": partial(policies, "cross_entropy"),
    "brain_controls": partial(policies, "slice_split", "shuffled_masks"),
    "brain_policies_findings": partial(told, ABLATION),
    "brain_pictures": pictures,
    "brain_pictures_findings": partial(told, CLASSIFY),
}
