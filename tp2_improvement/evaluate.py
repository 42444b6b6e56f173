"""Examine the trained networks of a comparison: the same test figures, and where they differ.

    python tp2_improvement/evaluate.py --comparison optimizers           # the last one made
    python tp2_improvement/evaluate.py --comparison batchnorm --run ID   # run id or folder name

Of each configuration the first seed's network is kept; it is loaded and tested again, without
training. Two networks of equal accuracy may err on different images: the picture counts on how many
test images exactly one of two is right, and McNemar's test says whether one is right more often.

Reference: Dietterich (Neural Computation 1998), section 3.1, on McNemar's test for two classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from json import loads
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from labkit.arguments import fail
from labkit.results import accuracy_interval
from tp1_mnist_api.train_model import to_input
from tp2_improvement.comparison import load_images
from tp2_improvement.evidence import holm

keras = labkit.lazy("keras")
stats = labkit.lazy("scipy.stats")

SCRIPTS = {
    "bias_variance": "tp2_ex1_bias_variance",
    "regularization": "tp2_ex2_regularization",
    "optimizers": "tp2_ex3_optimizers",
    "batchnorm": "tp2_ex4_batchnorm",
}


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    comparison: Literal["bias_variance", "regularization", "optimizers", "batchnorm"] = "optimizers"
    """Which exercise's networks."""
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


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the test accuracies."""
    config = labkit.parse(Config, argv)
    compared = labkit.find_run(f"tp2_improvement.{SCRIPTS[config.comparison]}", config.run)
    content = loads((compared.folder / "comparison.json").read_text())
    images = load_images(config.data, config.smoke or compared.config["smoke"])
    if images.source != compared.state["data_source"]:
        print(f"note: trained on {compared.state['data_source']}, examined on {images.source}")
    x_test, labels = to_input(images.x_test), images.y_test
    labkit.prepare(config.seed)

    name, parent = compared.state["name"], compared.state["run_id"] or ""
    with labkit.start_run(__file__, config, images.source, name, parent) as run:
        right = {}
        for configuration, folder in content["folders"].items():
            path = compared.folder.parents[1] / folder / "model.keras"
            if not path.exists():
                fail(f"{path} is missing: run the comparison again")
            probabilities = keras.saving.load_model(path).predict(x_test, 500, verbose=0)
            right[configuration] = probabilities.argmax(axis=1) == labels

        lines = ["| configuration | test % | 95 % interval over images | in the comparison |"]
        lines.append("| --- | --- | --- | --- |")
        for configuration, correct in right.items():
            low, high = accuracy_interval(int(correct.sum()), len(correct))
            stored = content["series"][f"{configuration}/test_accuracy"][0]
            lines.append(
                f"| {configuration} | {100 * correct.mean():.2f} | "
                f"{100 * low:.2f} to {100 * high:.2f} | {100 * stored:.2f} |"
            )
        pairs = list(combinations(right, 2))
        adjusted = holm([mcnemar(right[first], right[second]) for first, second in pairs])
        apart = [
            f"- {first} and {second}: McNemar's adjusted p = {p:.3g}"
            for (first, second), p in zip(pairs, adjusted, strict=True)
            if p < 0.05
        ]
        found = "\n".join(apart) or "- no two of these networks can be told apart"
        text = (
            "\n".join(lines)
            + f"\n\nSingle networks, seed {content['seeds'][0]}, {len(labels)} test images "
            f"({images.source}); floor, majority: "
            f"{100 * content['floors']['floor_majority']:.2f} %.\n"
            f"Told apart on the same images (Holm over {len(pairs)} pairs, 5 %):\n{found}\n"
        )
        print(f"\n{text}")
        run.save_text("report.md", f"# {name}, examined\n\n{text}")
        run.save_figure("disagreement", disagreement_figure(right))
        metrics = {f"{key}/test_accuracy": float(np.mean(value)) for key, value in right.items()}
        run.log_metrics(metrics)
    return metrics


if __name__ == "__main__":
    main()
