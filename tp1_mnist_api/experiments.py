"""TP1's reference figures: how they are made, what they must reach, how they are shown."""

from __future__ import annotations

from labkit.experiments import Column, Experiment, Gate, Row, machines, spread, table_of
from labkit.machine import ROOT
from labkit.results import accuracy_interval, markdown_table, read
from tp1_mnist_api.drawings import WAYS

TRAIN, EVALUATE = "tp1_mnist_api.train_model", "tp1_mnist_api.evaluate"
PICTURES = "tp1_mnist_api.evaluate_pictures"
SHIPPED = str(ROOT / "tp1_mnist_api" / "model" / "mnist.tflite")
FLOORS = ("floor_majority", "floor_logistic_regression", "floor_nearest_neighbours")
BEST = 0.999
"""No published figure is above, not even those that were chosen on test images."""

EXPERIMENTS = (
    Experiment(
        TRAIN,
        "dense",
        ("--model", "dense"),
        (0, 1, 2, 3, 4),
        EVALUATE,
        gates=(Gate("test_accuracy", 0.975, BEST),),
    ),
    Experiment(
        TRAIN, "dense_stratified", ("--model", "dense", "--split", "stratified"), (0, 1, 2, 3, 4)
    ),
    *(
        Experiment(
            TRAIN,
            model.replace("-", "_"),
            ("--model", model),
            then=EVALUATE,
            gates=(Gate("test_accuracy", lowest, BEST, above=FLOORS),),
        )
        for model, lowest in (("dense-strong", 0.990), ("cnn", 0.995), ("compact", 0.994))
    ),
    Experiment(
        PICTURES,
        arguments=("--model", SHIPPED, "--images", "250"),
        gates=tuple(
            Gate(
                f"accuracy_{way.replace(' ', '_')}",
                0.92 if way == "hairline on uneven paper" else 0.95,
                BEST,
                above=("floor_majority",),
            )
            for way in WAYS
        ),
    ),
)
MODELS = {
    "dense": "hand-out's dense network",
    "dense_stratified": "the same, random stratified validation images",
    "dense_strong": "strong dense network",
    "cnn": "convolutional network",
    "compact": "small convolutional network, the one that is served",
}
ROWS = [Row(label, f"{TRAIN}.{variant}") for variant, label in MODELS.items()]


def accuracy() -> str:
    """Accuracies of the models and their floors, in percent."""
    columns = [
        Column("test %", "test_accuracy", 100, bold=True),
        Column("validation %", "validation_accuracy", 100),
        Column("training %", "train_accuracy", 100),
        Column("seconds", "train_seconds", digits=0),
    ]
    return table_of(ROWS, columns, "model")


def examined() -> str:
    """What evaluate.py finds on the test images."""
    columns = [
        Column("calibration error (ECE)", "expected_calibration_error", digits=4),
        Column("accuracy %, shifted 6 pixels", "accuracy_shift_6", 100, 1),
        Column("accuracy %, rotated 60 degrees", "accuracy_rotation_60", 100, 1),
        Column("accuracy %, noise of sd 0.5", "accuracy_noise_0.5", 100, 1),
    ]
    rows = [row for row in ROWS if "stratified" not in row.file]
    return table_of(rows, columns, floors_from=(), turned=True)


def pictures() -> str:
    """Accuracy on digits drawn as pictures, in percent, and how often a warning came with it.

    The interval is that of one seed's number of images: the seeds draw the same digits.
    """
    content = read(PICTURES)
    metrics, rows = content["metrics"], []
    count = round(metrics["images"]["mean"])
    for name, found in metrics.items():
        if not name.startswith("accuracy_"):
            continue
        way = name.removeprefix("accuracy_")
        low, high = accuracy_interval(round(count * found["mean"]), count)
        warned = metrics.get(f"warned_{way}")
        rows.append(
            [
                way.replace("_", " "),
                spread(found, 100, 1),
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{100 * warned['mean']:.1f}" if warned else "",
            ]
        )
    majority = ["floor: majority", f"{100 * content['floors']['majority']:.1f}", "", ""]
    return markdown_table(["way", "test %", "95 % interval", "with a warning %"], [majority, *rows])


def time_to_accuracy() -> str:
    """The race to 99 % test accuracy."""
    content = read("bench.mnist_time_to_accuracy")
    rows = [
        [recipe["label"], spread(recipe["seconds"], digits=1), spread(recipe["test_accuracy"], 100)]
        for recipe in content["recipes"].values()
    ]
    table = markdown_table(["recipe", "seconds to 99 %", "test % then"], rows)
    return f"{table}\n{machines([content])}\n"


def api_load() -> str:
    """The API beside other ways to serve its model, the fastest first."""
    content = read("bench.api_load")
    servers = content["servers"].items()
    rows = []
    for name, found in sorted(servers, key=lambda item: -item[1]["requests_per_second"]["mean"]):
        statuses = found["bad_inputs"].values()
        ratio = content.get(f"ratio_ours_over_{name}")
        rows.append(
            [
                found["label"],
                spread(found["requests_per_second"], digits=0),
                *(f"{found[key]['mean']:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
                f"{sum(found['errors']['values'])}",
                f"{sum(400 <= status < 500 for status in statuses)} of {len(statuses)}",
                f"{found['memory_mib']['mean']:.0f}",
                f"{found['cold_start_seconds']['mean']:.1f}",
                f"{found['environment_mb']:.0f}",
                spread(ratio) if ratio else "",
            ]
        )
    rows += [
        [f"{name}, absent: {reason}", *[""] * 10] for name, reason in content["absent"].items()
    ]
    header = ["server", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors", "bad inputs refused"]
    header += ["memory MiB", "cold start s", "environment MB", "ours is times as fast"]
    return markdown_table(header, rows)


TABLES = {
    "tp1_accuracy": accuracy,
    "tp1_examined": examined,
    "tp1_pictures": pictures,
    "time_to_accuracy": time_to_accuracy,
    "api_load": api_load,
}
