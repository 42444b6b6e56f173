"""How a signature is judged against references, and how often that is wrong.

A claim is a query with a writer's name. It is scored by its distances to that writer's reference
signatures: their mean, less the mean distance of the references among themselves, where there are
two or more. Writers who sign unsteadily are then not accused for it. A claim is accepted when the
score is at most a threshold.

FRR is the share of genuine queries that are refused, FAR that of forgeries that are accepted:
skilled ones, by forgers who saw the signature, and random ones, genuine signatures of others. The
equal error rate (EER) is where both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tp6_real_world.signature_verification.data import Signatures

REFERENCES = (1, 5, 10)
DRAWS = 10
"""Random choices of references over which each error rate is averaged."""
STRANGERS = 2
"""Genuine signatures of each other writer that claim to be this one: random forgeries."""
GENUINE, SKILLED, RANDOM = 0, 1, 2


@dataclass(frozen=True)
class Claims:
    """Scored queries; all arrays are (n,)."""

    score: np.ndarray
    kind: np.ndarray
    """GENUINE, SKILLED or RANDOM."""
    writer: np.ndarray
    """Whose signature it claims to be."""
    draw: np.ndarray
    """Which choice of references it was compared to."""
    query: np.ndarray
    """Its row in the part."""

    def of(self, rows: np.ndarray) -> Claims:
        """Those of `rows`, a mask or indices."""
        return Claims(*(value[rows] for value in vars(self).values()))


def joined(parts: Sequence[Claims]) -> Claims:
    """The claims of several parts whose writers differ."""
    return Claims(*(np.concatenate(columns) for columns in zip(
        *(vars(part).values() for part in parts), strict=True)))  # fmt: skip


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between rows of `first` (n, d) and `second` (m, d).

    In float64 and rounded: error rates count who is before whom, and the last digits of float32
    differ from one way of running a network to the next.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    squares = (first**2).sum(axis=1)[:, np.newaxis] + (second**2).sum(axis=1)
    return np.sqrt(np.maximum(squares - 2 * first @ second.T, 0)).round(5)


def own_distance(table: np.ndarray) -> float:
    """Mean distance of references among themselves, `table` (r, r); 0 for a single one."""
    count = len(table)
    return float(table.sum() / (count * (count - 1))) if count > 1 else 0.0


def claims(
    features: np.ndarray, part: Signatures, references: int, normalise: bool = True
) -> Claims:
    """All claims of a part against `references` signatures of each writer, `DRAWS` times.

    `features` (n, d) are those of the part's rows. Genuine signatures that are no reference, all
    forgeries of the writer, and some signatures of the others are the queries. Writers with no more
    genuine signatures than `references` make no claims.
    """
    table = distances(features, features)
    found: list[tuple] = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([draw, references])
        for writer in np.unique(part.writers):
            own = (part.writers == writer) & (part.y == 0)
            genuine = rng.permutation(np.flatnonzero(own))
            if len(genuine) <= references:
                continue
            known, queries = genuine[:references], genuine[references:]
            skilled = np.flatnonzero((part.writers == writer) & (part.y == 1))
            others = [
                rng.choice(np.flatnonzero((part.writers == other) & (part.y == 0)), STRANGERS)
                for other in np.unique(part.writers)
                if other != writer
            ]
            strangers = np.concatenate(others) if others else np.empty(0, np.int64)
            usual = own_distance(table[np.ix_(known, known)]) if normalise else 0.0
            for kind, rows in ((GENUINE, queries), (SKILLED, skilled), (RANDOM, strangers)):
                scores = table[np.ix_(rows, known)].mean(axis=1) - usual
                found += [(score, kind, writer, draw, row)
                          for score, row in zip(scores, rows, strict=True)]  # fmt: skip
    columns = zip(*found, strict=True) if found else [()] * 5
    return Claims(*map(np.array, columns))


# --- Error rates ---------------------------------------------------------------------------------


def error_rates(genuine: np.ndarray, forged: np.ndarray) -> tuple[np.ndarray, ...]:
    """(thresholds, FAR, FRR), each threshold one of the scores; lower scores are accepted."""
    thresholds = np.unique(np.concatenate([genuine, forged]))
    accepted = np.searchsorted(np.sort(forged), thresholds, side="right") / len(forged)
    refused = 1 - np.searchsorted(np.sort(genuine), thresholds, side="right") / len(genuine)
    return thresholds, accepted, refused


def equal_error(genuine: np.ndarray, forged: np.ndarray) -> tuple[float, float]:
    """The equal error rate and its threshold: FAR and FRR cross there, the mean of both is told."""
    thresholds, far, frr = error_rates(genuine, forged)
    at = int(np.argmin(np.abs(far - frr)))
    return float((far[at] + frr[at]) / 2), float(thresholds[at])


def pooled(found: Claims, kind: int = SKILLED) -> float:
    """The EER with one threshold for all writers, mean over draws."""
    return float(np.mean([
        equal_error(some.score[some.kind == GENUINE], some.score[some.kind == kind])[0]
        for some in (found.of(found.draw == draw) for draw in np.unique(found.draw))
    ]))  # fmt: skip


def per_writer(found: Claims, kind: int = SKILLED) -> float:
    """The EER with a threshold for each writer, mean over writers and draws."""
    return float(np.mean([
        equal_error(some.score[some.kind == GENUINE], some.score[some.kind == kind])[0]
        for draw in np.unique(found.draw)
        for writer in np.unique(found.writer)
        for some in [found.of((found.draw == draw) & (found.writer == writer))]
    ]))  # fmt: skip


def area(found: Claims, kind: int = SKILLED) -> float:
    """AUC: how often a forgery scores above a genuine signature, 0.5 for chance."""
    genuine, forged = np.sort(found.score[found.kind == GENUINE]), found.score[found.kind == kind]
    below = np.searchsorted(genuine, forged, "left") + np.searchsorted(genuine, forged, "right")
    return float(below.mean() / (2 * len(genuine)))


def threshold_of(found: Claims) -> float:
    """The threshold where FAR of skilled forgeries and FRR meet, over all draws together."""
    return equal_error(found.score[found.kind == GENUINE], found.score[found.kind == SKILLED])[1]


def rates_at(found: Claims, threshold: float) -> dict[str, float]:
    """FRR, and FAR of skilled and of random forgeries, when scores up to `threshold` pass."""
    accepted = found.score <= threshold
    return {
        "frr": float(1 - accepted[found.kind == GENUINE].mean()),
        "far": float(accepted[found.kind == SKILLED].mean()),
        "far_random": float(accepted[found.kind == RANDOM].mean()),
    }


def usable(part: Signatures, numbers: Sequence[int] = REFERENCES) -> list[int]:
    """Those numbers of references that leave every writer of the part a genuine query."""
    fewest = min(
        int(((part.writers == writer) & (part.y == 0)).sum()) for writer in np.unique(part.writers)
    )
    return [number for number in numbers if number < fewest]


def measure(features: np.ndarray, part: Signatures, thresholds: dict[int, float]) -> dict:
    """Error rates of a part, with `thresholds` chosen elsewhere, for each number of references.

    EER with one threshold and with each writer's own, for skilled and random forgeries; FAR and FRR
    at the given threshold; without the normalisation by the writer's own distances where that is
    possible (`_raw`).
    """
    found = {}
    for number, threshold in thresholds.items():
        scored = claims(features, part, number)
        if not len(scored.score):  # nobody here has so many genuine signatures
            continue
        rates = rates_at(scored, threshold)
        found |= {f"{name}_{number}": rate for name, rate in rates.items()}
        found |= {
            f"eer_{number}": pooled(scored),
            f"eer_{number}_per_writer": per_writer(scored),
            f"eer_{number}_random": pooled(scored, RANDOM),
            f"auc_{number}": area(scored),
        }
        if number > 1:
            found[f"eer_{number}_raw"] = pooled(claims(features, part, number, normalise=False))
    return found
