"""The networks whose features style transfer compares: where they are found, how they are read.

Style transfer needs a network that has learnt to see. ImageNet's VGG16 is looked for first; what
comes with this repository is a small one of the same build, trained on CIFAR-10 by
`train_features.py`.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015) for the build.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import labkit
from labkit.arguments import fail
from labkit.files import UNREADABLE, DataError, Origin, obtain, verify

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate

OWN_WEIGHTS = Path(__file__).resolve().parent / "weights" / "cifar10_features.npz"
IMAGENET_BGR_MEAN = (103.939, 116.779, 123.68)
"""What Keras' VGG16 subtracts from images in 0..255, blue first."""


def _origin(file: str, **known: str) -> Origin:
    """Where one published network comes from; it may also lie below `style_weights/`."""
    sample = "this repository's small network, trained on CIFAR-10"
    return Origin(files=(file, f"style_weights/{file}"), sample=sample, cache="models", **known)


ORIGINS = {  # by the token in the run's name, in the order of preference
    "vgg16": _origin(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        name="VGG16, ImageNet",
        credit="K. Simonyan, A. Zisserman; converted by Keras",
        licence="CC BY 4.0",
        page="https://keras.io/api/applications/vgg/",
        url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        digest="md5:6d6bbae143d832006294945121d1f1fc",  # as in keras.applications
    ),
    "vgg19_distilled": _origin(
        "vgg19_distilled16x_to_block5_conv1.npz",
        name="VGG-19 distilled to a quarter of its channels, ImageNet",
        credit="H. Wang, Y. Li, Y. Wang, H. Hu, M.-H. Yang (Collaborative Distillation)",
        licence="MIT",
        page="https://github.com/MingSun-Tse/Collaborative-Distillation",
        digest="sha256:82bb481c5b7cf6711af1a3d5cd769de8339f19220fd89b84677bac060e151d5b",
    ),
    "vgg19": _origin(
        "vgg19_normalised_to_block3_conv1.npz",
        name="VGG-19 up to block3_conv1, ImageNet",
        credit="K. Simonyan, A. Zisserman; normalised by L. Gatys, published by Y. Li (WCT)",
        licence="none stated",
        page="https://github.com/Yijunmaverick/UniversalStyleTransfer",
        digest="sha256:8d1c298cd77787bafd22b80f06c774bad2a912868e519b1f3ca0cd4e3c9a0657",
    ),
}


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

    @property
    def description(self) -> str:
        """Where the features come from and which are compared. Usage: `print(description)`."""
        deepest = "" if self.content_layer == "block5_conv2" else ", the deepest of this network"
        return (
            f"Features: {self.label} ({self.source})\n"
            f"Content layer: {self.content_layer}{deepest}\n"
            f"Style layers: {', '.join(self.style_layers)}"
        )


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
        published = _recognise(path)
        if choice == "real" and not published:
            names = ", ".join(origin.files[0] for origin in ORIGINS.values())
            fail(f"--data real: {weights} is none of {names}")
        return _read(path, published)
    files = [origin.files for origin in ORIGINS.values()]
    in_order = tuple(file for place in zip(*files, strict=True) for file in place)
    any_of_them = replace(ORIGINS["vgg16"], name="ImageNet weights", files=in_order)
    network, _ = obtain(any_of_them, choice, _read_published, lambda: _read(OWN_WEIGHTS))
    return network


def _recognise(path: Path) -> str:
    """Which of `ORIGINS` the file is, whatever its name; empty when it is none."""
    for token, origin in ORIGINS.items():
        with suppress(DataError):
            verify(path, origin.digest)
            return token
    return ""


def _read_published(path: Path) -> tuple[Network, str]:
    """The network that the file's name promises and its SHA-256; `DataError` for another file."""
    token = next(token for token, origin in ORIGINS.items() if origin.files[0] == path.name)
    sha256 = verify(path, ORIGINS[token].digest)
    return _read(path, token), sha256


def _read(path: Path, published: str = "") -> Network:
    """The network in `path`, one of `ORIGINS` or any other; exit code 2 when it is none."""
    try:
        if path.suffix == ".h5":
            model, name, label = vgg16(path), "vgg16", "VGG16 of unknown training"
        else:
            arrays, about = read_npz(path)
            model = build(arrays)
            name = about.get("name", "custom")
            label = about.get("label", f"network of unknown training, {path.name}")
    except (*UNREADABLE, TypeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        fail(f"--weights {path} is no feature network that can be read: {reason}")
    if published:
        name, label = published, ORIGINS[published].name
    model.trainable = False
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Network(name, label, f"{name}:{sha256[:8]}", model)


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
