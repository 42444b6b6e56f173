"""The task's figures: how they are made, what they must reach, how they are shown."""

from __future__ import annotations

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, machines, spread

TRAIN = "tp6_real_world.signature_verification.train"
EXAMINE = "tp6_real_world.signature_verification.evaluate"
FOLDS = (0, 1, 2, 3, 4)
"""Seeds that are folds: each writer is tested once."""
REFERENCES = (1, 5, 10)
FLOORS = ("pixels", "gradient_histograms")
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


def floor_cells(content: dict, name: str, columns: list[Column]) -> list[str]:
    """A floor in each column's metric."""
    values = (content["floors"].get(f"{name}_{column.metric}") for column in columns)
    return [
        "" if value is None else f"{column.factor * value:.{column.digits}f}"
        for column, value in zip(columns, values, strict=True)
    ]


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
    contents = [results.read(row.file) for row in found]
    lines = [
        [f"floor: {name.replace('_', ' ')}", *floor_cells(content, name, columns)]
        for content in contents[:1]
        for name in FLOORS
    ]
    for row in found:
        lines.append([row.label, *(column.cell(row.summary(column.metric)) for column in columns)])
    text = results.markdown_table(["EER %", *(column.heading for column in columns)], lines)
    return f"{text}\n{machines(contents)}\n" if contents else text


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
    lines = []
    found = there(METHODS)
    for number in REFERENCES:
        columns = [
            Column("genuine refused %", f"frr_{number}", 100, 1),
            Column("skilled accepted %", f"far_{number}", 100, 1),
            Column("random accepted %", f"far_random_{number}", 100, 1),
        ]
        for row in found[:1]:
            cells = floor_cells(results.read(row.file), FLOORS[-1], columns)
            lines.append([f"floor: {FLOORS[-1].replace('_', ' ')}", str(number), *cells, ""])
        for row in found:
            metrics = results.read(row.file)["metrics"]
            cells = [column.cell(metrics[column.metric]) for column in columns]
            name = f"all_writers_eer_{number}"
            pooled, low, high = (
                100 * metrics[key]["mean"] for key in (name, f"{name}_low", f"{name}_high")
            )
            cells.append(f"{pooled:.1f} [{low:.1f}, {high:.1f}]")
            lines.append([row.label, str(number), *cells])
    return results.markdown_table(
        ["", "references", "genuine refused %", "skilled accepted %", "random accepted %",
         "EER %, all 55 writers, one threshold"],
        lines,
    )  # fmt: skip


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
