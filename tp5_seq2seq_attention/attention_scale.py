"""Why scaled dot products are scaled: the gradient of the softmax against the width d_k.

With independent entries of mean 0 and variance 1, q.k is a sum of d_k products of variance 1: its
variance is d_k. Such scores drive softmax into a corner, where one weight is 1 and the Jacobian
diag(a) - a a' vanishes. Divided by sqrt(d_k) they have variance 1 at every width (Vaswani et al.,
NeurIPS 2017, section 3.2.1 and its footnote 4).
"""

from __future__ import annotations

import numpy as np

from labkit import figures

WIDTHS = (1, 4, 16, 64, 256, 1024)
KEYS = 32


def softmax_gradients(width: int, scaled: bool, draws: int = 400, seed: int = 0) -> dict:
    """Means over `draws` random queries with 32 keys each of `width` entries.

    `gradient` is the Frobenius norm of the softmax's Jacobian by the scores, `largest` the largest
    weight, `variance` that of the scores.
    """
    rng = np.random.default_rng([seed, width])
    query, key = rng.standard_normal((draws, width)), rng.standard_normal((draws, KEYS, width))
    scores = np.einsum("nd,nkd->nk", query, key)
    if scaled:
        scores /= np.sqrt(width)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    jacobian = weights[:, :, None] * (np.eye(KEYS) - weights[:, None, :])  # (draws, keys, keys)
    return {
        "gradient": float(np.linalg.norm(jacobian, axis=(1, 2)).mean()),
        "largest": float(weights.max(axis=1).mean()),
        "variance": float(scores.var()),
    }


def measure_scale(widths: tuple[int, ...] = WIDTHS) -> dict[str, float]:
    """`softmax_gradients` of every width, `scaled_gradient_64` and the like."""
    return {
        f"{'scaled' if scaled else 'unscaled'}_{name}_{width}": value
        for scaled in (True, False)
        for width in widths
        for name, value in softmax_gradients(width, scaled).items()
    }


def scale_figure(measured: dict[str, float], widths: tuple[int, ...] = WIDTHS) -> figures.Figure:
    """Gradient and largest weight against the width, with and without the scale."""
    figure, axes = figures.subplots(1, 2, size=(10, 4))
    for name, axis in zip(("gradient", "largest"), axes, strict=True):
        for kind, style in (("scaled", "-"), ("unscaled", "--")):
            values = [measured[f"{kind}_{name}_{width}"] for width in widths]
            axis.plot(widths, values, style, marker="o", label=kind)
        axis.set(xscale="log", xlabel="width $d_k$")
        axis.legend()
    axes[0].set(yscale="log", title="Norm of the softmax's gradient")
    axes[1].set(title=f"Largest of {KEYS} weights", ylim=(0, 1.02))
    return figure
