"""The hand-out's MLflow part: a trained model is logged and registered, the best one is champion.

The champion's export and card lie in `outputs/champion`, where the API finds them.
"""

from __future__ import annotations

import shutil

import numpy as np
from filelock import FileLock

import labkit

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")

REGISTERED_NAME = "mnist"


def beats(challenger: dict[str, str], champion: dict[str, str]) -> bool:
    """Whether a model with tags `challenger` replaces the one with tags `champion`.

    It does when its validation accuracy is higher on the same validation images, or when it is
    the first that saw real data: one from the sample never replaces that, however accurate it is
    on the sample's own images. The test set takes no part in the choice.
    """
    if challenger["validation_set"] == champion.get("validation_set"):
        return float(challenger["validation_accuracy"]) > float(champion["validation_accuracy"])
    return is_from_sample(champion) and not is_from_sample(challenger)


def is_from_sample(tags: dict[str, str]) -> bool:
    """Whether the model with these `tags` was trained on the built-in sample."""
    return tags.get("validation_set", "").startswith("sample")


def log_to_mlflow(model: keras.Model, example: np.ndarray, tags: dict[str, str]) -> bool:
    """Log `model` with its signature, register it, and let it challenge the champion.

    `example` is (n, 784) in 0..1; `tags` are those of `beats`. Returns whether the alias
    `champion` moved to the new version.
    """
    logged = mlflow.tensorflow.log_model(
        model,
        name="mnist-model",
        signature=mlflow.models.infer_signature(example, model.predict(example, verbose=0)),
        input_example=example,
        pip_requirements=["tensorflow", "keras", "numpy"],  # inferring them takes 5 s
        registered_model_name=REGISTERED_NAME,
    )
    client, version = mlflow.MlflowClient(), logged.registered_model_version
    for key, value in tags.items():
        client.set_model_version_tag(REGISTERED_NAME, version, key, value)
    aliases = client.get_registered_model(REGISTERED_NAME).aliases
    if "champion" in aliases:
        champion = client.get_model_version(REGISTERED_NAME, aliases["champion"])
        if not beats(tags, champion.tags):
            print(f"Registered as version {version}; version {champion.version} stays champion.")
            return False
    client.set_registered_model_alias(REGISTERED_NAME, "champion", version)
    print(f"Registered as version {version}, the new champion.")
    return True


def publish(run: labkit.Run, model: keras.Model, example: np.ndarray, tags: dict[str, str]) -> None:
    """Register `model`, see `log_to_mlflow`; a new champion's files are copied for `make serve`.

    The run's folder holds them: `mnist.tflite` and its card `mnist.json`. A model from the sample
    never takes the place of files from real data, not even where the registry is new and empty.
    """
    from tp1_mnist_api.serving.model_file import saw_real_data  # it loads LiteRT

    champion = labkit.home() / "outputs" / "champion"
    champion.mkdir(exist_ok=True)
    with FileLock(champion / "lock"):  # two trainings may end at once
        if not run.track(log_to_mlflow, model, example, tags):
            return
        served = champion / "mnist.tflite"
        if is_from_sample(tags) and served.exists() and saw_real_data(served):
            print(f"The API goes on serving {served}, which was trained on real data.")
            return
        for file in ("mnist.tflite", "mnist.json"):
            shutil.copy2(run.folder / file, champion / file)
    if is_from_sample(tags):
        print("It was trained on the sample: the API serves the model that comes with the code.")
