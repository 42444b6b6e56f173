"""TP2's reference figures: how they are made, what they must reach, how README.md shows them."""

from collections.abc import Callable
from functools import partial

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, findings, table_of

FLOORS = ("floor_majority", "floor_logistic_regression")


def comparison(script: str, seeds: int, gates: dict[str, float]) -> Experiment:
    """One of the four; `gates` are the least test accuracies of some configurations."""
    return Experiment(
        f"tp2_improvement.{script}",
        seeds=tuple(range(seeds)),
        comparison=True,
        gates=tuple(
            Gate(f"{name}/test_accuracy", lowest, 0.99, above=FLOORS)
            for name, lowest in gates.items()
        ),
    )


EXPERIMENTS = (
    comparison("tp2_ex1_bias_variance", 4, {"handout": 0.975}),
    comparison("tp2_ex2_regularization", 4, {"two_dropouts": 0.976}),
    comparison("tp2_ex3_optimizers", 5, {"momentum_0.1": 0.976, "adam_0.001": 0.975}),
    comparison("tp2_ex4_batchnorm", 4, {"handout_after": 0.975}),
)

TRAINING = Column("training %", "train_accuracy", 100)
VALIDATION = Column("validation %", "validation_accuracy", 100)
TEST = Column("test %", "test_accuracy", 100)
COLUMNS = {
    "bias_variance": (
        TRAINING,
        Column("training % as printed by fit()", "logged_train_accuracy", 100),
        VALIDATION,
        TEST,
    ),
    "regularization": (
        TRAINING,
        VALIDATION,
        Column("validation loss", "validation_cross_entropy", digits=3),
        TEST,
    ),
    "optimizers": (TRAINING, VALIDATION, TEST),
    "batchnorm": (
        Column("epochs to 97.5 % validation", "epochs_to_97.5", digits=1, absent="never"),
        Column("seconds to it", "seconds_to_97.5", digits=1, absent="never"),
        Column("validation %, 5 epochs", "validation_accuracy_of_5_epochs", 100),
        Column("validation %, 10 epochs", "validation_accuracy", 100),
        TEST,
    ),
}


def table(file: str, columns: tuple[Column, ...]) -> str:
    """Floors and configurations of one comparison."""
    names = [key.partition("/") for key in results.read(file)["metrics"]]
    rows = [Row(f"`{name}`", file, name) for name, _, metric in names if metric == TRAINING.metric]
    return table_of(rows, columns, "configuration", main=TEST.metric)


TABLES: dict[str, Callable[[], str]] = {}
for _experiment, (_name, _columns) in zip(EXPERIMENTS, COLUMNS.items(), strict=True):
    TABLES[f"tp2_{_name}"] = partial(table, _experiment.file, _columns)
    TABLES[f"tp2_{_name}_findings"] = partial(findings, _experiment.file)
