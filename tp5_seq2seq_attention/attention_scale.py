"""Why scaled dot products are scaled: the gradient of the softmax against the width d_k.

With independent entries of mean 0 and variance 1, q.k is a sum of d_k products of variance 1: its
variance is d_k. Such scores drive softmax into a corner, where one weight is 1 and the Jacobian
diag(a) - a a' vanishes. Divided by sqrt(d_k) they have variance 1 at every width (Vaswani et al.,
NeurIPS 2017, section 3.2.1 and its footnote 4).

What reaches the weights of a network is the gradient by the *query*. It has one factor more, that
of the chain rule: da/dq = (diag(a) - a a') K / sqrt(d_k) with the scale, without the root without.
Both are skewed, most draws near 0 and a few far above, so medians and quartiles are kept.
"""

from __future__ import annotations

import numpy as np

from labkit import figures

WIDTHS = (1, 4, 16, 64, 256, 1024)
KEYS = 32
QUANTITIES = {
    "by_scores": "Norm of the weights' gradient by the scores",
    "by_query": "Norm of the weights' gradient by the query",
    "largest": f"Largest of {KEYS} weights",
}


def softmax_gradients(
    width: int, scaled: bool, draws: int = 400, seed: int = 0
) -> dict[str, np.ndarray]:
    """What `draws` random queries with 32 keys each of `width` entries give, (draws,) each.

    `by_scores` is the Frobenius norm of the weights' Jacobian by the softmax's input, `by_query`
    that by the query, `largest` the largest weight, `variance` that of the softmax's input.
    """
    rng = np.random.default_rng([seed, width])
    query, key = rng.standard_normal((draws, width)), rng.standard_normal((draws, KEYS, width))
    if scaled:
        key = key / np.sqrt(width)  # q.k and its derivative by q alike
    scores = np.einsum("nd,nkd->nk", query, key)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    jacobian = weights[:, :, None] * (np.eye(KEYS) - weights[:, None, :])  # (draws, keys, keys)
    return {
        "by_scores": np.linalg.norm(jacobian, axis=(1, 2)),
        "by_query": np.linalg.norm(jacobian @ key, axis=(1, 2)),
        "largest": weights.max(axis=1),
        "variance": scores.var(axis=1),
    }


def measure_scale(widths: tuple[int, ...] = WIDTHS) -> dict[str, list[float]]:
    """Lower quartile, median and upper quartile of each quantity at each width.

    They are called `scaled_by_query_64` and the like.
    """
    return {
        f"{'scaled' if scaled else 'unscaled'}_{name}_{width}": np.percentile(
            found[name], [25, 50, 75]
        ).tolist()
        for scaled in (True, False)
        for width in widths
        for found in [softmax_gradients(width, scaled)]
        for name in QUANTITIES
    }


def scale_in_words(measured: dict[str, list[float]]) -> list[str]:
    """What the quartiles allow to say."""
    widths = sorted({int(name.rpartition("_")[2]) for name in measured})

    def told(kind: str, name: str) -> str:
        low, middle, high = measured[f"{kind}_{name}_{widths[-1]}"]
        return f"{middle:.2g} (quartiles {low:.2g} and {high:.2g})"

    larger = [
        str(width)
        for width in widths
        if measured[f"unscaled_by_query_{width}"][1] > measured[f"scaled_by_query_{width}"][1]
    ]
    return [
        f"At d_k = {widths[-1]} the median norm of the weights' gradient by the {by} is "
        f"{told('scaled', f'by_{by}')} with 1 / sqrt(d_k) and {told('unscaled', f'by_{by}')} "
        "without."
        for by in ("scores", "query")
    ] + [
        "By the query the median is larger without the scale at d_k = "
        f"{', '.join(larger) or 'none'} of {', '.join(map(str, widths))}."
    ]  # fmt: skip


def scale_figure(measured: dict[str, list[float]]) -> figures.Figure:
    """Medians and quartiles of each quantity against the width, with and without the scale."""
    figure, axes = figures.subplots(1, len(QUANTITIES), size=(14, 4))
    widths = sorted({int(name.rpartition("_")[2]) for name in measured})
    for (name, title), axis in zip(QUANTITIES.items(), axes, strict=True):
        for kind, style in (("scaled", "o-"), ("unscaled", "s--")):
            found = np.array([measured[f"{kind}_{name}_{width}"] for width in widths])
            axis.plot(widths, found[:, 1], style, label=kind)
            axis.fill_between(widths, found[:, 0], found[:, 2], alpha=0.2)
        axis.set(xscale="log", xlabel="width $d_k$", title=title)
        axis.set_xticks(widths, widths)
        axis.minorticks_off()
    for axis in axes[:2]:
        axis.set(yscale="log", ylim=(1e-6, 10))
    axes[2].set(ylim=(0, 1.02))
    axes[0].legend(title="median, quartiles")
    return figure
