"""On which test images do the trained networks of a comparison differ?

    python tp2_improvement/evaluate.py             # the last of the four comparisons
    python tp2_improvement/evaluate.py --run ID    # run id or folder name

Of each configuration the first seed's network is kept; it is loaded and tested again, without
training. Two networks of equal accuracy may err on different images: the picture counts on how many
test images exactly one of two is right, and McNemar's test says whether one is right more often.

Reference: Dietterich (Neural Computation 1998), section 3.1, on McNemar's test for two classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

import labkit
from labkit import comparison, figures
from labkit.arguments import fail
from labkit.evidence import holm
from labkit.results import accuracy_interval, markdown_table
from tp1_mnist_api.digits import to_input
from tp2_improvement.training import load

keras = labkit.lazy("keras")
stats = labkit.lazy("scipy.stats")

EXAMINES = (
    "tp2_improvement.tp2_ex1_bias_variance",
    "tp2_improvement.tp2_ex2_regularization",
    "tp2_improvement.tp2_ex3_optimizers",
    "tp2_improvement.tp2_ex4_batchnorm",
)


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The comparison to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""
    seed: int = 0
    """Nothing is random here; the flag is that of every script."""
    smoke: bool = False
    """The first 256 test images only, as in training with --smoke."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p that two classifiers are right equally often, from (n,) right or wrong."""
    only_first, only_second = np.sum(first & ~second), np.sum(second & ~first)
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(int(only_first), int(only_first + only_second)).pvalue)


def disagreement_figure(right: dict[str, np.ndarray]) -> figures.Figure:
    """Test images on which the row's network is right and the column's is wrong."""
    names = [name.replace("_", " ") for name in right]
    size = 3 + 0.55 * len(names)
    figure, axis = figures.subplots(size=(size + 1.2, size))
    counts = np.array([[np.sum(a & ~b) for b in right.values()] for a in right.values()])
    axis.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > 0.6 * counts.max() else "black"
        axis.text(
            column, row, count if row != column else "", ha="center", va="center", color=color
        )
    axis.set_xticks(range(len(names)), labels=names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), labels=names)
    axis.set(xlabel="wrong", ylabel="right", title="Images that one gets right and the other wrong")
    axis.grid(False)
    return figure


def report(right: dict[str, np.ndarray], content: dict) -> str:
    """The accuracies beside those of the comparison, its `content`, and who can be told apart."""
    rows = []
    for configuration, correct in right.items():
        low, high = accuracy_interval(int(correct.sum()), len(correct))
        stored = content["series"][f"{configuration}/test_accuracy"][0]
        figures = (f"{100 * correct.mean():.2f}", f"{100 * low:.2f} to {100 * high:.2f}")
        rows.append([configuration, *figures, f"{100 * stored:.2f}"])
    header = ["configuration", "test %", "95 % interval over images", "in the comparison"]
    pairs = list(combinations(right, 2))
    adjusted = holm([mcnemar(right[first], right[second]) for first, second in pairs])
    apart = [
        f"- {first} and {second}: McNemar's adjusted p = {p:.3g}\n"
        for (first, second), p in zip(pairs, adjusted, strict=True)
        if p < 0.05
    ]
    return (
        f"{markdown_table(header, rows)}\nSingle networks, seed {content['seeds'][0]}, "
        f"{len(correct)} test images; floor, majority: "
        f"{100 * content['floors']['floor_majority']:.2f} %.\n"
        f"Told apart on the same images (Holm over {len(pairs)} pairs, 5 %):\n"
        + ("".join(apart) or "- no two of these networks can be told apart\n")
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the test accuracies."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    content = comparison.compared(trained)
    data = load(config.data, config.smoke or trained.config["smoke"], "stratified")
    labkit.prepare(config.seed)
    with labkit.examination(__file__, config, trained, data.source) as run:
        right = {}
        for configuration, folder in content["folders"].items():
            file = trained.folder.parents[1] / folder / "model.keras"
            if not file.exists():
                fail(f"{file} is missing: run the comparison again")
            model = labkit.load_model(file)
            probabilities = model.predict(to_input(data.test.x), 500, verbose=0)  # (n, 10)
            right[configuration] = probabilities.argmax(axis=1) == data.test.y
        metrics = {f"{name}/test_accuracy": float(np.mean(row)) for name, row in right.items()}
        run.log_metrics(metrics)
        text = report(right, content)
        print(f"\n{text}")
        run.save_report(f"{trained.state['name']}, examined", text)
        run.save_figure("disagreement", disagreement_figure(right))
    return metrics


if __name__ == "__main__":
    main()
