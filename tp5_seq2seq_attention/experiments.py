"""The figures of this lab: how they are made, what they must reach, how they are shown."""

import re
from functools import partial

from labkit import results
from labkit.experiments import (
    Column,
    Experiment,
    Gate,
    Row,
    findings,
    machines,
    spread,
    table_of,
)
from tp5_seq2seq_attention.floors import HORIZONS, PENALTIES, PUBLISHED

ATTENTION = "tp5_seq2seq_attention.attention_exercise"
FORECAST = "tp5_seq2seq_attention.seq2seq_attention"
GATES = {
    "synthetic": (
        Gate("mse", 0.0100, 0.0115, below=("floor_ridge",)),  # the noise alone is 0.0100
    ),
    "etth1_96": (Gate("mse", 0.340, 0.375, below=("floor_ridge", "floor_ridge_336")),),
}


def inside_the_grid(*floors: str) -> tuple[Gate, ...]:
    """A floor whose penalty is the least or the largest of those tried could be stronger."""
    return tuple(
        Gate(f"chosen_penalty_of_{floor}", PENALTIES[1], PENALTIES[-2]) for floor in floors
    )


EXPERIMENTS = (
    Experiment(
        ATTENTION, arguments=("--task", "all"), data="auto", comparison=True,
        gates=(
            Gate("attention_pairs_marked50/test_accuracy", 0.98, 1.00),
            Gate("attention_pairs_marked50/test_attention_recall", 0.95, 1.00),
            Gate("mean_negation50/test_accuracy", 0.45, 0.55),  # proved: 0.5
            Gate(
                "attention_pairs_marked200/test_accuracy", 0.98, 1.00,
                above=("gru_marked200/test_accuracy",),
            ),
        ),
    ),
    Experiment(
        FORECAST, "synthetic", data="auto",
        gates=GATES["synthetic"] + inside_the_grid("ridge"),
    ),
    *(
        Experiment(FORECAST, f"synthetic_{name}", arguments, data="auto")
        for name, arguments in {
            "forced": ("--decoder", "forced"),
            "direct": ("--decoder", "direct"),
            "64": ("--units", "64"),
            "20": ("--horizon", "20"),
        }.items()
    ),
    Experiment(
        FORECAST, "monthly", ("--series", "monthly"), data="auto",
        gates=inside_the_grid("ridge"),
    ),
    *(
        Experiment(
            FORECAST, f"etth1_{horizon}", ("--series", "etth1", "--horizon", str(horizon)),
            gates=GATES.get(f"etth1_{horizon}", ()) + inside_the_grid("ridge", "ridge_336"),
        )
        for horizon in HORIZONS
    ),
    Experiment(
        FORECAST, "etth1_ot", ("--series", "etth1-ot"),
        gates=inside_the_grid("ridge", "ridge_336"),
    ),
)  # fmt: skip
PASSENGERS = {
    "MSE of the airline passengers, floor: seasonal naive": "air_passengers_seasonal_naive_mse",
    "MSE of the airline passengers, floor: ridge": "air_passengers_ridge_mse",
    "MSE of the airline passengers, BiLSTM + attention": "air_passengers_mse",
}
SERIES = {
    "synthetic": "synthetic, 10",
    "synthetic_forced": "the same, `--decoder forced`",
    "synthetic_direct": "the same, `--decoder direct`",
    "synthetic_64": "the same, `--units 64`",
    "synthetic_20": "synthetic, 20",
    "monthly": "monthly, 12",
    **{f"etth1_{horizon}": f"ETTh1, {horizon}" for horizon in HORIZONS},
    "etth1_ot": "ETTh1, oil temperature, 96",
}


def attention() -> str:
    """Accuracy and attention recall of the networks of every task and length, with the floors."""
    content = results.read(ATTENTION)
    floors, lines = content["floors"], []
    columns = [
        Column("test accuracy", "test_accuracy", digits=3, cloud=0.25),
        Column("attention recall", "test_attention_recall", digits=3),
        Column("seconds", "train_seconds", digits=0),
    ]
    tasks = dict.fromkeys(name.rpartition("_")[2] for name in content["train_seconds"])
    for task in tasks:
        words = re.sub(r"(\D+)(\d+)", r"`\1`, \2 words", task)
        floor = [f"{floors[f'{name}_{task}']:.3f}" for name in ("majority", "uniform_attention")]
        lines.append([words, "floor: majority, uniform attention", *floor, ""])
        for name in content["train_seconds"]:
            network, _, of = name.rpartition("_")
            if of == task:
                row = Row(network, ATTENTION, name)
                cells = (column.cell(row.summary(column.metric)) for column in columns)
                lines.append([words, f"`{network}`", *cells])
    heading = ["sentences", "network", *(column.heading for column in columns)]
    return f"{results.markdown_table(heading, lines)}\n{machines([content])}\n"


def forecasts(*variants: str) -> str:
    """Free-running test errors beside floors and published figures, a series a column."""
    variants = [variant for variant in variants if results.exists(f"{FORECAST}.{variant}")]
    contents = [results.read(f"{FORECAST}.{variant}") for variant in variants]
    named = dict.fromkeys(name for content in contents for name in content["floors"])
    names = [name for name in named if not name.endswith("_mae")]

    def row(label: str, floor: str) -> list[str]:
        floors = (content["floors"].get(floor) for content in contents)
        return [label, *("" if value is None else f"{value:.4f}" for value in floors)]

    lines = []
    for metric, ending in (("mse", ""), ("mae", "_mae")):
        for name in names:
            kind = "best possible: the noise" if name == "noise" else f"floor: {name}"
            if f"{name}{ending}" in named:
                lines.append(row(f"{metric.upper()}, {kind.replace('_', ' ')}", f"{name}{ending}"))
        errors = (f"**{spread(c['metrics'][metric], digits=4)}**" for c in contents)
        lines.append([f"**{metric.upper()}, BiLSTM + attention**", *errors])
    for label, metric in PASSENGERS.items():
        found = [content["metrics"].get(metric) for content in contents]
        if any(found):
            column = Column("", metric, digits=4, plain="floor" in label)
            lines.append([label, *(column.cell(each) for each in found)])
    known = {f"etth1_{horizon}": place for place, horizon in enumerate(HORIZONS)}
    if known.keys() >= set(variants):
        lines += [
            [f"MSE, published: {name}", *(f"{row[known[variant]]:.3f}" for variant in variants)]
            for name, row in PUBLISHED.items()
        ]
    counts = (f"{c['metrics']['parameters']['mean']:,.0f}" for c in contents)
    lines.append(["parameters", *counts])
    lines.append(["seconds", *(spread(c["train_seconds"], digits=0) for c in contents)])
    heading = ["error", *(SERIES[variant] for variant in variants)]
    return f"{results.markdown_table(heading, lines)}\n{machines(contents)}\n"


def behaviour() -> str:
    """What teacher forcing hides, what the intervals hold, how far attention reaches."""
    rows = [Row(label, f"{FORECAST}.{variant}") for variant, label in SERIES.items()]
    columns = [
        Column("MSE under teacher forcing", "teacher_forced_mse", digits=4),
        Column("free-running costs", "free_running_gap", digits=4),
        Column("90 % intervals hold, %", "raw_coverage", 100, 1),
        Column("calibrated, %", "coverage", 100, 1),
        Column("steps with 90 % of the attention", "attention_span", digits=1, plain=True),
        Column("of uniform attention", "attention_span_of_uniform_attention", digits=0, plain=True),
        Column("of all", "attention_steps", digits=0, plain=True),
        Column("mean distance back", "attention_distance", digits=1, plain=True),
        Column(
            "of uniform attention", "attention_distance_of_uniform_attention", digits=1, plain=True
        ),
    ]
    return table_of(rows, columns, "series", "raw_coverage", floors_from=())


TABLES = {
    "tp5_attention": attention,
    "tp5_attention_findings": partial(findings, ATTENTION),
    "tp5_forecasts": partial(forecasts, *(name for name in SERIES if not name.startswith("etth1"))),
    "tp5_etth1": partial(forecasts, *(f"etth1_{horizon}" for horizon in HORIZONS)),
    "tp5_etth1_ot": partial(forecasts, "etth1_ot"),
    "tp5_behaviour": behaviour,
}
