"""The networks whose features style transfer compares, and the training of our own.

Style transfer needs a network that has learnt to see. ImageNet's VGG16 is looked for first; what
comes with this repository is a small one of the same build, trained on CIFAR-10 by this script:

    python tp3_cnn_resnet/style_features.py            # train it again
    python tp3_cnn_resnet/style_features.py --ship     # ... and put it into the repository
    python tp3_cnn_resnet/style_features.py --smoke    # everything once, in seconds

It is a means, not a record: no normalisation layers, 147,892 weights, saved in half precision. The
file itself tells its accuracy.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015) for the build.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import labkit
from labkit import figures
from labkit.arguments import fail
from labkit.datasets import keras_cache
from labkit.machine import commit
from tp3_cnn_resnet.augmentation import mirrored_and_moved
from tp3_cnn_resnet.models import to_input

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
batches = labkit.lazy("labkit.batches")

OWN_WEIGHTS = Path(__file__).resolve().parent / "weights" / "cifar10_features.npz"
VGG16_URL = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
IMAGENET_BGR_MEAN = (103.939, 116.779, 123.68)
"""What Keras' VGG16 subtracts from images in 0..255, blue first."""


@dataclass(frozen=True)
class Known:
    """A weights file that is recognised by its hash. Usage: `KNOWN[0].file`."""

    file: str
    digest: str
    """`<algorithm>:<hex>`, as published or as computed from the original file."""
    name: str
    """Token in the run's name."""
    label: str
    """What is written on each figure."""


KNOWN = (  # in the order of preference
    Known(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:6d6bbae143d832006294945121d1f1fc",  # as in keras.applications
        "vgg16",
        "VGG16, ImageNet",
    ),
    Known(
        "vgg19_distilled16x_to_block5_conv1.npz",
        "sha256:82bb481c5b7cf6711af1a3d5cd769de8339f19220fd89b84677bac060e151d5b",
        "vgg19_distilled",
        "VGG-19 distilled to a quarter of its channels, ImageNet",
    ),
    Known(
        "vgg19_normalised_to_block3_conv1.npz",
        "sha256:8d1c298cd77787bafd22b80f06c774bad2a912868e519b1f3ca0cd4e3c9a0657",
        "vgg19",
        "VGG-19 up to block3_conv1, ImageNet",
    ),
)


@dataclass(frozen=True)
class Network:
    """A frozen feature network. Usage: `find_network("auto").model`."""

    name: str
    """Token in the run's name."""
    label: str
    """What it is, in words, for prints and figures."""
    source: str
    """`<name>:<first 8 of the file's SHA-256>`."""
    model: keras.Model
    """RGB (batch, height, width, 3) in 0..1 -> the last feature map; layers `blockB_convC`."""

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions, the first one first. Usage: `network.layers[-1]`."""
        names = [layer.name for layer in self.model.layers]
        return [name for name in names if re.fullmatch(r"block\d+_conv\d+", name)]

    @property
    def content_layer(self) -> str:
        """The hand-out's `block5_conv2`, or the deepest layer where the network ends before it."""
        return "block5_conv2" if "block5_conv2" in self.layers else self.layers[-1]

    @property
    def style_layers(self) -> list[str]:
        """The hand-out's first convolution of each block, as far as the network goes."""
        return [name for name in self.layers if name.endswith("_conv1")][:5]


# --- Finding and reading weights -----------------------------------------------------------------


def find_network(choice: labkit.DataChoice = "auto", weights: str = "auto") -> Network:
    """The network to compare images with. Usage: `network = find_network(config.data)`.

    `weights` is a file (Keras' VGG16 `.h5` without top, or an `.npz` as `read_npz` takes it), or
    `auto`: `$LABKIT_DATA`, the Keras cache, a verified download, and last this repository's own
    network with a warning. `choice` `sample` takes the own network at once, `real` accepts only
    ImageNet weights. A file that can't be read is one message and exit code 2.
    """
    if weights != "auto":
        path = Path(weights).expanduser()
        if not path.is_file():
            fail(f"--weights {weights} does not exist or is no file")
        known = next((one for one in KNOWN if _digest(path, one.digest) == one.digest), None)
        if choice == "real" and known is None:
            fail(f"--data real: {weights} is none of {', '.join(one.file for one in KNOWN)}")
        return _load(path, known)
    if choice == "sample":
        return _load(OWN_WEIGHTS, None)
    found, tried = _search()
    if found:
        return _load(*found)
    report = "".join(f"\n  - {line}" for line in tried)
    advice = f"Put {KNOWN[0].file} into a folder and set LABKIT_DATA to that folder."
    if choice == "real":
        fail(f"--data real: no ImageNet weights can be had. Tried:{report}\n{advice}")
    print(
        "warning: no ImageNet weights can be had, so the features come from this repository's "
        f"small network, trained on CIFAR-10. Tried:{report}\n{advice}",
        file=sys.stderr,
    )
    return _load(OWN_WEIGHTS, None)


def _search() -> tuple[tuple[Path, Known] | None, list[str]]:
    """The first good known file and what it is, or None; and what was tried."""
    folder = os.environ.get("LABKIT_DATA")
    tried = [] if folder else ["LABKIT_DATA: not set"]
    models = keras_cache().parent / "models"
    own = [Path(folder).expanduser()] if folder else []
    for place in [*own, *(path / "style_weights" for path in own), models]:
        for known in KNOWN:
            path = place / known.file
            if not path.is_file():
                tried.append(f"{path}: absent")
            elif _digest(path, known.digest) != known.digest:
                print(f"warning: damaged weights file, not used: {path}", file=sys.stderr)
                tried.append(f"{path}: not the file that its name promises")
            else:
                return (path, known), tried
    import pooch
    import requests

    try:
        path = pooch.retrieve(  # a temporary file, the hash, then an atomic rename
            VGG16_URL + KNOWN[0].file,
            known_hash=KNOWN[0].digest,
            fname=KNOWN[0].file,
            path=models,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=(3, 30)),
        )
        return (Path(path), KNOWN[0]), tried
    except (requests.RequestException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        tried.append(f"{VGG16_URL}{KNOWN[0].file}: {type(error).__name__}: {reason}")
    return None, tried


def _digest(path: Path, like: str) -> str:
    """The file's hash in the form and with the algorithm of `like`."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _load(path: Path, known: Known | None) -> Network:
    """The network in `path`; leaves with exit code 2 when it is none."""
    try:
        if path.suffix == ".h5":
            model, name, label = vgg16(path), "vgg16", "VGG16 of unknown training"
        else:
            arrays, about = read_npz(path)
            model = build(arrays)
            name = about.get("name", "custom")
            label = about.get("label", f"network of unknown training, {path.name}")
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        fail(f"--weights {path} is no feature network that can be read: {reason}")
    if known:
        name, label = known.name, known.label
    model.trainable = False
    return Network(name, label, f"{name}:{_digest(path, 'sha256:')[7:15]}", model)


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a network file and what it says about itself. Usage: `read_npz(path)`.

    `preprocess/kernel` (1, 1, 3, 3) and `preprocess/bias` (3,) turn RGB in 0..1 into the network's
    input; then `blockB_convC/kernel` (3, 3, in, out) and `/bias` (out,) for each convolution.
    `about`, if there, is JSON text. Raises `ValueError` and NumPy's errors for anything else;
    pickled arrays are refused.
    """
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array and is no .npz archive")
        about = json.loads(str(archive["about"])) if "about" in archive.files else {}
        names = [name for name in archive.files if name.endswith(("/kernel", "/bias"))]
        arrays = {name: archive[name].astype(np.float32) for name in names}
    channels = 3
    for layer in ["preprocess", *convolutions(arrays)]:
        kernel, bias = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
        size = 1 if layer == "preprocess" else 3
        if kernel.shape[:-1] != (size, size, channels) or bias.shape != kernel.shape[-1:]:
            raise ValueError(f"{layer} has shapes {kernel.shape} and {bias.shape}")
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(f"{layer} holds values that are not finite")
        channels = len(bias)
    return arrays, {str(key): str(value) for key, value in about.items()}


def convolutions(arrays: dict[str, np.ndarray]) -> list[str]:
    """Names `blockB_convC` in `arrays`, in their order. Raises `ValueError` if there are none."""
    found = [re.fullmatch(r"block(\d+)_conv(\d+)/kernel", name) for name in arrays]
    order = sorted((int(match[1]), int(match[2])) for match in found if match)
    if not order:
        raise ValueError("it holds no block1_conv1")
    return [f"block{block}_conv{number}" for block, number in order]


def build(arrays: dict[str, np.ndarray]) -> keras.Model:
    """The VGG-like network of `arrays`, for images of any size. Usage: `build(read_npz(p)[0])`.

    RGB (batch, height, width, 3) in 0..1 -> preprocessing; per convolution a border of one
    reflected pixel, 3x3, ReLU; a 2x2 max-pooling between blocks.
    """
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(3, 1, name="preprocess")(inputs)
    block = 1
    for name in convolutions(arrays):
        number = int(name[5 : name.index("_")])
        if number > block:
            x, block = keras.layers.MaxPooling2D(2)(x), number  # (B, h/2, w/2, C)
        # Zeros at the border would be edges that no image has.
        x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        channels = arrays[f"{name}/kernel"].shape[-1]
        x = keras.layers.Conv2D(  # (B, h, w, channels)
            channels, 3, activation="relu", kernel_initializer="he_normal", name=name
        )(x)
    model = keras.Model(inputs, x)
    for layer in model.layers:
        if f"{layer.name}/kernel" in arrays:
            layer.set_weights([arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"]])
    return model


def preprocess(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in 0..1, (..., 3), to VGG16's input: BGR in 0..255 less ImageNet's mean."""
    return images[..., ::-1] * 255 - np.array(IMAGENET_BGR_MEAN, np.float32)


def deprocess(features: np.ndarray) -> np.ndarray:
    """VGG16's input (..., 3) back to RGB, uint8: the mean is added first, the clipping comes last.

    Our loop optimises RGB in 0..1 and has no need of it; the hand-out's form, which optimises
    what the network is given, has. Clipped too early, all that is below the mean would be lost.
    """
    return np.clip(np.rint((features + IMAGENET_BGR_MEAN)[..., ::-1]), 0, 255).astype(np.uint8)


def vgg16(path: Path) -> keras.Model:
    """Keras' VGG16 without top on RGB in 0..1, weights from `path` (.h5). Usage: `vgg16(path)`.

    Raises `ValueError`, `KeyError` or `OSError` for a file of another network, or damaged.
    """
    inputs = keras.Input((None, None, 3))
    model = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=preprocess(inputs)
    )
    model.load_weights(path)  # Keras' first file format, matched by the order of the layers
    return model


# --- Training our own ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Settings of the training of our own feature network."""

    epochs: int = 8
    """Passes over the training images, 1 or more."""
    ship: bool = False
    """Replace the file in the repository; only after a whole training on real CIFAR-10."""
    seed: int = 0
    """Seed of the weights, the order and the augmentation; never of the split."""
    data: labkit.DataChoice = "auto"
    """auto: real CIFAR-10 or, without it, a sample; real: real or an error; sample: patterns."""
    smoke: bool = False
    """One epoch on 512 images, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seed=0)


WIDTHS = {"block1": 24, "block2": 48, "block3": 64, "block4": 80}
DEPTHS = {"block1": 2, "block2": 2, "block3": 2, "block4": 1}


def blank_network(x_train: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Untrained arrays as `build` takes them; the input is scaled by the images' statistics."""
    rng = np.random.default_rng(seed)
    scaled = to_input(x_train)
    mean, deviation = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    arrays = {
        "preprocess/kernel": np.diag(1 / deviation)[None, None].astype(np.float32),
        "preprocess/bias": (-mean / deviation).astype(np.float32),
    }
    channels = 3
    for block, width in WIDTHS.items():
        for number in range(1, DEPTHS[block] + 1):
            kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, width))  # He
            arrays[f"{block}_conv{number}/kernel"] = kernel.astype(np.float32)
            arrays[f"{block}_conv{number}/bias"] = np.zeros(width, np.float32)
            channels = width
    return arrays


def train(config: Config, data: labkit.Images, run: labkit.Run) -> dict[str, float]:
    """Fit features and a linear head, save `cifar10_features.npz` in the run; return accuracies."""
    order = np.random.default_rng(0).permutation(len(data.x_train))  # the same for every seed
    held_out = len(order) // 10
    validation, training = order[:held_out], order[held_out:]
    labkit.prepare(config.seed)
    features = build(blank_network(data.x_train[training], config.seed))
    features.get_layer("preprocess").trainable = False
    x = keras.layers.GlobalAveragePooling2D()(features.output)  # (B, 80)
    model = keras.Model(features.input, keras.layers.Dense(10, activation="softmax")(x))
    steps = config.epochs * -(-len(training) // 128)
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps - steps // 5, alpha=0.005, warmup_target=2e-3, warmup_steps=steps // 5
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        steps_per_execution=10,
        jit_compile=False,
    )
    model.fit(
        batches.Batches(
            data.x_train[training], data.y_train[training], 128, config.seed, run.first_epoch,
            mirrored_and_moved,
        ),
        validation_data=(to_input(data.x_train[validation]), data.y_train[validation]),
        epochs=config.epochs, initial_epoch=run.first_epoch, shuffle=False,
        callbacks=[run.checkpoints(model)], verbose=2,
    )  # fmt: skip

    arrays = {}
    for layer in features.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            exact = np.float32 if layer.name == "preprocess" else np.float16
            arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"] = (
                kernel.astype(exact),
                bias,
            )
            layer.set_weights([arrays[f"{layer.name}/kernel"], bias])  # what is saved is tested
    metrics = {"train_seconds": run.seconds}
    for part, images, labels in (
        ("validation", data.x_train[validation], data.y_train[validation]),
        ("test", data.x_test, data.y_test),
    ):
        predicted = model.predict(to_input(images), batch_size=500, verbose=0).argmax(axis=1)
        metrics[f"{part}_accuracy"] = float(np.mean(predicted == labels))
    about = {
        "name": "cifar10_net",
        "label": "our CIFAR-10 network, not ImageNet",
        "data_source": data.source,
        "commit": commit(),
        "epochs": config.epochs,
        "seed": config.seed,
        **metrics,
    }
    path = run.folder / OWN_WEIGHTS.name
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train our feature network, save it, return its accuracies."""
    config = labkit.parse(Config, argv)
    data = labkit.load_cifar10(config.data)
    if config.ship and (config.smoke or data.source == "sample"):
        fail("--ship needs a whole training on real CIFAR-10")
    if config.smoke:
        data = data.head(512, 256)
        config = Config(**{**vars(config), "epochs": 1})
    name = f"vgg_like-adamw-crossentropy-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            run.log_metrics(train(config, data, run))
            curves = figures.learning_curves(run.history, ["loss", "accuracy"])
            run.save_figure("learning_curves", curves)
        path = run.folder / OWN_WEIGHTS.name
        print(f"Test accuracy: {run.metrics['test_accuracy']:.4f}")
        print(f"Use it: python tp3_cnn_resnet/style_transfer.py --weights {path}")
        if config.ship:
            shutil.copy2(path, OWN_WEIGHTS)
    return run.metrics


if __name__ == "__main__":
    main()
