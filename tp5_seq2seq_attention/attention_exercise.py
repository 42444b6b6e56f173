"""Does attention lie on the words that decide, and what is it good for as sentences grow?

    python tp5_seq2seq_attention/attention_exercise.py              # the first marked colour
    python tp5_seq2seq_attention/attention_exercise.py --task negation
    python tp5_seq2seq_attention/attention_exercise.py --task recall
    python tp5_seq2seq_attention/attention_exercise.py --task all
    python tp5_seq2seq_attention/attention_exercise.py --smoke      # everything once, in seconds
    python tp5_seq2seq_attention/attention_exercise.py --resume     # go on after an interruption

1. Five networks learn generated sentences of which it is known which words decide, with the same
   data and budget, over several seeds: a bag of words, a GRU, the hand-out's GRU with
   `SimpleAttention`, and two with attention that has no upper bound. See `grammar.py`.
2. Attention recall: the share of the weight that lies on the deciding words.
3. The gradient of the softmax with and without 1 / sqrt(d_k): see `attention_scale.py`.

README.md has the figures and the time on two cores.

References: Bahdanau et al. (ICLR 2015), Vaswani et al. (NeurIPS 2017), Jain and Wallace (NAACL
2019) on what weights over recurrent states do not say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np

import labkit
from tp5_seq2seq_attention.attention_report import (
    conclusions,
    curves_figure,
    heat_figure,
    length_figure,
    table,
)
from tp5_seq2seq_attention.attention_scale import measure_scale, scale_figure
from tp5_seq2seq_attention.grammar import TASKS, Sentences, TaskName, draw, labels_of

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp5_seq2seq_attention.attention_models")

NETWORKS = ("mean", "gru", "handout", "attention_states", "attention_pairs")
LENGTH = 50
"""Full length of the sentences, in words."""
LENGTHS = {20: ("gru", "attention_pairs"), LENGTH: NETWORKS, 200: ("gru", "attention_pairs")}
"""Lengths of `marked` sentences: the networks that learn them. The others have one length."""
COUNTS = {"train": 10_000, "validation": 1_000, "test": 2_000}
BATCH_SIZE, LEARNING_RATE = 64, 3e-3
SOLVED = 0.999
"""Validation accuracy at which a training ends early."""
EXAMPLES = 3
"""Test sentences whose weights are drawn."""


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    task: Literal["all", "negation", "marked", "recall"] = "marked"
    """What decides, see grammar.py; all: the three, one after the other."""
    epochs: int = 10
    """Passes over the 10,000 training sentences at most, 1 or more."""
    seeds: int = 3
    """Trainings of each network, 1 or more."""
    seed: int = 0
    """The first seed, of weights and order; never of the sentences. The others follow it."""
    data: labkit.DataChoice = "auto"
    """auto and sample: generated sentences; there is no other choice here."""
    ray_address: str = "auto"
    """auto: Ray Tune where it is installed and two trainings fit side by side, else one after the
    other; off: one after the other; local: Ray on this machine; or a cluster's address."""
    smoke: bool = False
    """One seed and epoch of two networks on few short sentences: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seeds=1, seed=0)
        if self.data == "real":
            raise ValueError(
                "--data real: the sentences are generated, so that it is known what decides"
            )

    def trials(self) -> list[Trial]:
        """The trainings, seed by seed."""
        lengths = {LENGTH: ("gru", "attention_pairs"), 20: ("gru",)} if self.smoke else LENGTHS
        return [
            Trial(
                task=task, length=length, network=network, seed=seed,
                epochs=1 if self.smoke else self.epochs, smoke=self.smoke, resume=self.resume,
            )
            for seed in range(self.seed, self.seed + (1 if self.smoke else self.seeds))
            for task in (TASKS if self.task == "all" else (self.task,))
            for length, networks in lengths.items()
            if task == "marked" or length == LENGTH
            for network in networks
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of one network."""

    task: TaskName
    length: int
    network: str
    seed: int
    epochs: int
    smoke: bool
    resume: bool


@lru_cache(maxsize=2)
def sentences(task: TaskName, length: int, smoke: bool) -> dict[str, Sentences]:
    """The parts train, validation and test, from generators that share no seed."""
    return {
        part: draw(task, 64 if smoke else count, length, [number, length, TASKS.index(task)])
        for number, (part, count) in enumerate(COUNTS.items())
    }


# --- Training ------------------------------------------------------------------------------------


def train(trial: Trial, parts: dict[str, Sentences], run: labkit.Run) -> keras.Model:
    """Train the trial's network with Adam; the weights of the lowest validation loss."""
    labkit.prepare(trial.seed)
    build = models.BUILDERS[trial.network]
    model = build(trial.length, len(labels_of(trial.task)), asks=trial.task == "recall")
    classifier = keras.Model(model.input, model.output["label"])  # the weights have no loss
    classifier.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    training, validation = parts["train"], parts["validation"]

    def stop_when_solved(epoch: int, logs: dict[str, float]) -> None:
        classifier.stop_training = logs["val_accuracy"] >= SOLVED

    solved = max(run.history.get("val_accuracy", [0.0])) >= SOLVED  # before an interruption
    classifier.fit(
        batches.Batches(training.tokens, training.labels, BATCH_SIZE, trial.seed, run.first_epoch),
        validation_data=(validation.tokens, validation.labels),
        epochs=run.first_epoch if solved else trial.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[
            run.keeps_best("val_loss", "min"),
            run.checkpoints(classifier),
            keras.callbacks.LambdaCallback(on_epoch_end=stop_when_solved),
        ],
        verbose=0,
    )
    classifier.load_weights(run.best_file)
    return model


def score(model: keras.Model, part: Sentences) -> dict[str, float]:
    """Accuracy; with attention its recall, entropy in nats and largest weight on padding.

    `attention_recall` is the weight on the deciding words, the mean over sentences; uniform
    attention has `uniform_recall`.
    """
    found = model.predict(part.tokens, batch_size=500, verbose=0)
    metrics = {"accuracy": np.mean(found["label"].argmax(axis=1) == part.labels)}
    is_word = part.tokens > 0
    metrics["uniform_recall"] = (part.deciding.sum(axis=1) / is_word.sum(axis=1)).mean()
    if "weights" in found:
        weights = found["weights"].astype(np.float64)
        metrics["attention_recall"] = (weights * part.deciding).sum(axis=1).mean()
        logarithms = np.log(np.maximum(weights, 1e-12))
        metrics["attention_entropy"] = -(weights * logarithms).sum(axis=1).mean()
        metrics["weight_on_padding"] = weights[~is_word].max(initial=0.0)
    return {name: float(value) for name, value in metrics.items()}


def run_trial(parent: str, trial: Trial) -> dict:
    """Train one network as a child run of `parent`, or find it finished; what it measured."""
    parts = sentences(trial.task, trial.length, trial.smoke)
    source = f"simulated:{trial.task}"
    name = f"{trial.network}_{trial.task}{trial.length}-adam-crossentropy-s{trial.seed}"
    with labkit.start_run(__file__, trial, source, name, parent, "trial") as run:
        if not run.is_finished:
            model = train(trial, parts, run)
            metrics = {"train_seconds": run.seconds, "parameters": model.count_params()}
            metrics["epochs"] = len(run.history["loss"])
            for part in ("validation", "test"):  # the one look at the test sentences
                found = score(model, parts[part])
                metrics |= {f"{part}_{key}": value for key, value in found.items()}
            run.log_metrics(metrics)
            outputs = model.predict(parts["test"].tokens[:EXAMPLES], verbose=0)
            run.save_text("examples.json", json.dumps(outputs.get("weights", np.empty(0)).tolist()))
            model.save(run.folder / "model.keras")
    return {
        "task": trial.task,
        "length": trial.length,
        "network": trial.network,
        "seed": trial.seed,
        "metrics": run.metrics,
        "history": run.history,
        "examples": json.loads((run.folder / "examples.json").read_text()),
        "folder": f"{run.folder.parent.name}/{run.folder.name}",  # below outputs/, which may move
    }


# --- Main ----------------------------------------------------------------------------------------


def floors(outcomes: list[dict], smoke: bool) -> dict[str, float]:
    """Test accuracy of the most frequent label, and recall of uniform attention, of each task."""
    found = {}
    for task, length in dict.fromkeys((each["task"], each["length"]) for each in outcomes):
        parts = sentences(task, length, smoke)
        majority = np.bincount(parts["train"].labels).argmax()
        test = parts["test"]
        found[f"floor_majority_{task}{length}"] = float(np.mean(test.labels == majority))
        uniform = test.deciding.sum(axis=1) / (test.tokens > 0).sum(axis=1)
        found[f"floor_uniform_attention_{task}{length}"] = float(uniform.mean())
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all networks, measure where they look, conclude; the mean of every metric."""
    config = labkit.parse(Config, argv)
    source = f"simulated:{config.task}"
    with labkit.start_run(__file__, config, source, "attention-adam-crossentropy") as run:
        if run.is_finished:
            print(f"\n{(run.folder / 'report.md').read_text()}")
            return run.metrics
        function = partial(run_trial, run.mlflow_id)
        outcomes = labkit.fan_out(function, config.trials(), config.ray_address, "networks")
        series: dict[str, list[float]] = {}
        for outcome in outcomes:
            name = f"{outcome['network']}_{outcome['task']}{outcome['length']}"
            for metric, value in outcome["metrics"].items():
                series.setdefault(f"{name}/{metric}", []).append(value)
        scale = measure_scale()
        floor_values = floors(outcomes, config.smoke)

        for task in dict.fromkeys(outcome["task"] for outcome in outcomes):
            of_task = [outcome for outcome in outcomes if outcome["task"] == task]
            shown = sentences(task, LENGTH, config.smoke)["test"]
            first = [o for o in of_task if o["length"] == LENGTH and o["seed"] == config.seed]
            weights = {o["network"]: np.array(o["examples"]) for o in first if o["examples"]}
            run.save_figure(f"attention_{task}", heat_figure(task, shown, weights))
            run.save_figure(f"curves_{task}", curves_figure(of_task))
            run.save_figure(f"lengths_{task}", length_figure(of_task))
        run.save_figure("scale", scale_figure(scale))

        means = {name: float(np.mean(sample)) for name, sample in series.items()}
        run.log_metrics(means | floor_values | scale)
        sentences_found = conclusions(series, floor_values, scale)
        seeds = sorted({outcome["seed"] for outcome in outcomes})
        text = (
            f"# Where attention lies\n\nData: {source}. Seeds {seeds}; mean ± standard deviation. "
            f"The weights of the lowest validation loss are tested, once.\n\n"
            f"{table(series, floor_values)}\n"
            + "".join(f"- {sentence}\n" for sentence in sentences_found)
        )
        print(f"\n{text}")
        run.save_text("report.md", text)
        content = {
            "seeds": seeds,
            "series": series,
            "floors": floor_values,
            "conclusions": sentences_found,
            "details": {"scale": scale},
            "folders": {
                f"{each['network']}_{each['task']}{each['length']}": each["folder"]
                for each in outcomes
                if each["seed"] == seeds[0]
            },
        }
        run.save_text("comparison.json", json.dumps(content, indent=1))
    return run.metrics


if __name__ == "__main__":
    main()
