"""The task's figures: how they are made, what they must reach, how they are shown."""

from __future__ import annotations

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, spread, table_of

TRAIN = "tp6_real_world.signature_verification.train"
EXAMINE = "tp6_real_world.signature_verification.evaluate"
FOLDS = (0, 1, 2, 3, 4)
"""Seeds that are folds: each writer is tested once."""
HOG = "floor_gradient_histograms"

EXPERIMENTS = (
    Experiment(
        TRAIN, "triplet", seeds=FOLDS, then=EXAMINE,
        gates=(
            Gate("eer_10", 0.03, 0.12, below=(f"{HOG}_eer_10",)),
            Gate("eer_1", 0.08, 0.17, below=(f"{HOG}_eer_1",)),
        ),
    ),
    Experiment(TRAIN, "siamese", ("--method", "siamese"), FOLDS, EXAMINE),
    Experiment(TRAIN, "siamese_map", ("--method", "siamese", "--encoder", "map"), (0, 2, 4)),
    Experiment(TRAIN, "triplet_dense", ("--encoder", "dense"), (0, 2, 4)),
    Experiment(TRAIN, "triplet_signatures", ("--augmentation", "signatures"), (0, 2, 4)),
    Experiment(TRAIN, "triplet_plain", ("--augmentation", "none"), (0, 2, 4)),
)  # fmt: skip
METHODS = {
    "siamese": "method 1: siamese, contrastive",
    "triplet": "method 2: map, hard triplets",
}
ABLATIONS = {
    "triplet": "method 2",
    "triplet_dense": "a vector in place of the map",
    "triplet_signatures": "each signature's own small warp only",
    "triplet_plain": "no augmentation",
    "siamese": "method 1",
    "siamese_map": "method 1 with the map",
}
SHORTCUTS = {
    "file_margins": "file: blank margins",
    "file_mean_grey": "file: mean grey",
    "file_paper_grey": "file: the paper's grey",
    "file_histogram": "file: histogram of greys",
    "canvas_mean": "canvas: mean",
    "canvas_histogram": "canvas: histogram",
    "canvas_extent_and_ink": "canvas: height, width and amount of ink",
}


def rows(labels: dict[str, str]) -> list[Row]:
    """A row for each variant."""
    return [Row(label, f"{TRAIN}.{variant}") for variant, label in labels.items()]


def there(labels: dict[str, str]) -> list[Row]:
    """Those whose figures are there."""
    return [row for row in rows(labels) if results.exists(row.file)]


def errors() -> str:
    """Equal error rates of both methods and the floors, in percent, mean over folds."""
    columns = [
        Column("skilled, 1 reference", "eer_1", 100, 1),
        Column("5", "eer_5", 100, 1),
        Column("10", "eer_10", 100, 1, bold=True),
        Column("10, not normalised", "eer_10_raw", 100, 1),
        Column("10, a threshold per writer", "eer_10_per_writer", 100, 1),
        Column("random, 10", "eer_10_random", 100, 1),
        Column("seconds", "train_seconds", digits=0),
    ]
    found = there(METHODS)
    return table_of(found, columns, "EER %", main="eer_10", floors_from=found[:1])


def folds() -> str:
    """The skilled EER of each fold beside its floor."""
    names = [variant for variant in METHODS if results.exists(f"{TRAIN}.{variant}")]
    stored = {variant: results.read(f"{TRAIN}.{variant}") for variant in names}
    lines = []
    for number in (1, 10):
        of = f"{number} reference{'s' if number > 1 else ''}"
        for content in list(stored.values())[:1]:
            hog = content["floor_values"][f"gradient_histograms_eer_{number}"]
            lines.append([f"floor: gradient histograms, {of}", *(f"{100 * v:.1f}" for v in hog)])
        for variant, content in stored.items():
            values = content["metrics"][f"eer_{number}"]["values"]
            lines.append([f"{METHODS[variant]}, {of}", *(f"{100 * v:.1f}" for v in values)])
    return results.markdown_table(["EER %", *(f"fold {fold}" for fold in FOLDS)], lines)


def thresholds() -> str:
    """Error rates at the thresholds that validation writers chose, and the intervals."""
    columns = [
        Column("genuine refused %", "frr_{}", 100, 1),
        Column("skilled accepted %", "far_{}", 100, 1),
        Column("random accepted %", "far_random_{}", 100, 1),
    ]
    lines = []
    for row in there(METHODS):
        metrics = results.read(row.file)["metrics"]
        for number in (1, 5, 10):
            cells = [c.cell(metrics[c.metric.format(number)]) for c in columns]
            pooled = metrics.get(f"all_writers_eer_{number}")
            if pooled:
                low, high = (
                    100 * metrics[f"all_writers_eer_{number}_{end}"]["mean"]
                    for end in ("low", "high")
                )
                cells.append(f"{100 * pooled['mean']:.1f} [{low:.1f}, {high:.1f}]")
            lines.append([row.label, str(number), *cells])
    heading = ["", "references", *(column.heading for column in columns)]
    return results.markdown_table(
        [*heading, "EER %, all 55 writers, one threshold [drawing writers]"], lines
    )


def ablations() -> str:
    """What each choice is worth: validation writers' error rates."""
    columns = [
        Column("EER %, 1 reference", "validation_eer_1", 100, 1),
        Column("5", "validation_eer_5", 100, 1),
        Column("10", "validation_eer_10", 100, 1),
    ]
    lines = []
    for row in there(ABLATIONS):
        content = results.read(row.file)
        seeds = [content["seeds"].index(fold) for fold in (0, 2, 4)]
        cells = []
        for column in columns:
            values = [content["metrics"][column.metric]["values"][seed] for seed in seeds]
            cells.append(spread(results.summary(values), column.factor, column.digits))
        lines.append([row.label, *cells])
    heading = ["validation, folds 0, 2 and 4", *(column.heading for column in columns)]
    return results.markdown_table(heading, lines)


def shortcuts() -> str:
    """How well a single picture is told forged from genuine without looking at the writing."""
    lines = [
        [label, spread(results.read(row.file)["metrics"][f"shortcut_{name}"], 100, 1)]
        for row in there({"triplet": ""})
        for name, label in SHORTCUTS.items()
    ]
    return results.markdown_table(["known of one picture", "balanced accuracy %"], lines)


TABLES = {
    "tp6_signatures_errors": errors,
    "tp6_signatures_folds": folds,
    "tp6_signatures_thresholds": thresholds,
    "tp6_signatures_ablations": ablations,
    "tp6_signatures_shortcuts": shortcuts,
}
