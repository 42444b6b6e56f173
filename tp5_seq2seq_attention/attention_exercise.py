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
from typing import Literal

import numpy as np

import labkit
from labkit.comparison import Outcome, Settings, Trial, conclude, run_trials, show_again
from labkit.evidence import curves_figure, markdown
from tp5_seq2seq_attention.attention_measures import score
from tp5_seq2seq_attention.attention_report import conclusions, heat_figure, length_figure
from tp5_seq2seq_attention.attention_scale import measure_scale, scale_figure
from tp5_seq2seq_attention.grammar import TASKS, TaskName, labels_of, load

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp5_seq2seq_attention.attention_models")

NETWORKS = ("mean", "gru", "handout", "attention_states", "attention_pairs")
LENGTH = 50
"""Full length of the sentences, in words."""
LENGTHS = {20: ("gru", "attention_pairs"), LENGTH: NETWORKS, 200: ("gru", "attention_pairs")}
"""Lengths of `marked` sentences: the networks that learn them. The others have one length."""
BATCH_SIZE, LEARNING_RATE = 64, 3e-3
SOLVED = 0.999
"""Validation accuracy at which a training ends early."""
EXAMPLES = 3
"""Test sentences whose weights are drawn."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the comparison of networks."""

    task: Literal["all", "negation", "marked", "recall"] = "marked"
    """What decides, see grammar.py; all: the three, one after the other."""
    epochs: int = 10
    """Passes over the 10,000 training sentences at most, 1 or more."""
    data: labkit.DataChoice = "auto"
    """auto and sample: generated sentences; there is no other choice here."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, epochs=1)
        if self.data == "real":
            raise ValueError(
                "--data real: the sentences are generated, so that it is known what decides"
            )

    def trials(self) -> list[NetworkTrial]:
        """The trainings, seed by seed."""
        lengths = {LENGTH: ("mean", "attention_pairs")} if self.smoke else LENGTHS
        return [
            NetworkTrial(
                configuration=f"{network}_{task}{length}", task=task, length=length,
                network=network, seed=seed, epochs=2 if self.smoke else self.epochs,
                smoke=self.smoke, resume=self.resume,
            )
            for seed in self.all_seeds
            for task in (TASKS if self.task == "all" else (self.task,))
            for length, networks in lengths.items()
            if task == "marked" or length == LENGTH
            for network in networks
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NetworkTrial(Trial):
    """One training of one network."""

    task: TaskName
    length: int
    network: str
    epochs: int

    @property
    def run_name(self) -> str:
        """The run's name in the tracking store."""
        return f"{self.configuration}-adam-crossentropy-s{self.seed}"


# --- One training --------------------------------------------------------------------------------


def train(trial: NetworkTrial, data: labkit.Data, run: labkit.Run) -> keras.Model:
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

    def stop_when_solved(epoch: int, logs: dict[str, float]) -> None:
        classifier.stop_training = logs["val_accuracy"] >= SOLVED

    solved = max(run.history.get("val_accuracy", [0.0])) >= SOLVED  # before an interruption
    classifier.fit(
        batches.Batches(data.train.x, data.train.y, BATCH_SIZE, trial.seed, run.first_epoch),
        validation_data=(data.validation.x, data.validation.y),
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


def study(trial: NetworkTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Train one network, keep it and where it looks in a few test sentences; what it scores."""
    model = train(trial, data, run)
    model.save(run.folder / "model.keras")
    metrics = {
        "train_seconds": run.seconds,
        "parameters": model.count_params(),
        "epochs": len(run.history["loss"]),
    }
    test = data.test.open()
    for name, part in {"validation": data.validation, "test": test}.items():
        metrics |= {f"{name}_{key}": value for key, value in score(model, part).items()}
    weights = model.predict(test.x[:EXAMPLES], verbose=0).get("weights", np.empty(0))
    run.save_text("examples.json", json.dumps(weights.tolist()))
    return metrics


# --- All of them ---------------------------------------------------------------------------------


def floors(every: dict[tuple[TaskName, int], labkit.Data]) -> dict[str, float]:
    """Test accuracy of the most frequent label, and recall of uniform attention, of each task."""
    found = {}
    for (task, length), data in every.items():
        majority = np.bincount(data.train.y).argmax()
        found[f"floor_majority_{task}{length}"] = float(np.mean(data.test.y == majority))
        uniform = data.test.deciding.sum(axis=1) / (data.test.x > 0).sum(axis=1)
        found[f"floor_uniform_attention_{task}{length}"] = float(uniform.mean())
    return found


def draw_task(run: labkit.Run, task: TaskName, outcomes: list[Outcome], data: labkit.Data) -> None:
    """Save the figures of one task's `outcomes`; `data` are its sentences of `LENGTH` words."""
    seed = run.config["seed"]
    first = [o for o in outcomes if (o.trial.length, o.trial.seed) == (LENGTH, seed)]
    weights = {
        outcome.trial.network: np.array(json.loads((outcome.path / "examples.json").read_text()))
        for outcome in first
        if "test_attention_recall" in outcome.metrics
    }
    run.save_figure(f"attention_{task}", heat_figure(task, data.test, weights))
    run.save_figure(
        f"curves_{task}", curves_figure(outcomes, {"val_accuracy": "validation accuracy"})
    )
    run.save_figure(f"lengths_{task}", length_figure(outcomes))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train all networks, measure where they look, conclude; the mean of every metric."""
    config = labkit.parse(Config, argv)
    source = f"simulated:{config.task}"
    with labkit.start_run(__file__, config, source, "attention-adam-crossentropy") as run:
        if run.is_finished:
            return show_again(run)

        def load_for(trial: NetworkTrial) -> labkit.Data:
            return load(config.data, config.smoke, trial.task, trial.length)

        trials = config.trials()
        outcomes = run_trials(
            run, __file__, study, load_for, trials, config.ray_address, "networks"
        )
        every = {(trial.task, trial.length): load_for(trial) for trial in trials}
        for task in dict.fromkeys(trial.task for trial in trials):
            of_task = [outcome for outcome in outcomes if outcome.trial.task == task]
            draw_task(run, task, of_task, every[task, LENGTH])
        scale = measure_scale()
        run.save_figure("scale", scale_figure(scale))
        floor_metrics = floors(every)

        attentive = [outcome for outcome in outcomes if "test_attention_recall" in outcome.metrics]
        columns = {"test_accuracy": "test %", "epochs": "epochs", "train_seconds": "seconds"}
        return conclude(
            run,
            "Where attention lies",
            outcomes,
            columns,
            conclusions(outcomes, floor_metrics, scale),
            floor_metrics,
            {"scale_quartiles": scale},
            "The weights of the lowest validation loss are tested, once.\n\n"
            + markdown(attentive, {"test_attention_recall": "attention recall"}),
        )


if __name__ == "__main__":
    main()
