"""The race: what its clock counts, when a recipe is at the target, and what is refused."""

import time

import pytest

import labkit
from tools.bench.race import race, timed


def epochs_of(*accuracies: float):
    def epochs(seed: int):
        for accuracy in accuracies:
            time.sleep(0.02)
            yield accuracy  # in place of a network, which has it

    return epochs


def slowly(accuracy: float) -> float:
    time.sleep(0.2)
    return accuracy


def test_the_clock_leaves_out_what_examines_the_network():
    seconds, accuracy = timed(epochs_of(0.5, 0.7)(0), slowly, None)
    assert 0.04 <= seconds < 0.2
    assert accuracy == 0.7


@pytest.fixture
def prepared(monkeypatch):
    seeds = []
    monkeypatch.setattr(labkit, "prepare", seeds.append)
    return seeds


def accuracies(content: dict) -> dict[str, list[float]]:
    return {name: found["test_accuracy"]["values"] for name, found in content["recipes"].items()}


def test_without_a_target_the_plain_recipe_sets_it(prepared):
    recipes = {"plain": ("a", epochs_of(0.8, 0.7)), "fast": ("b", epochs_of(0.6, 0.75, 0.9))}
    found = race(recipes, float, 2)
    assert accuracies(found) == {"plain": [0.7, 0.7], "fast": [0.75, 0.75]}
    assert prepared == [0, 0, 1, 1]
    plain, fast = (found["recipes"][name]["seconds"]["values"] for name in ("plain", "fast"))
    assert found["ratio_fast_over_plain"]["values"] == [plain[0] / fast[0], plain[1] / fast[1]]


def test_a_target_ends_both(prepared, capsys):
    recipes = {"plain": ("a", epochs_of(0.8, 0.95, 1)), "fast": ("b", epochs_of(0.9, 0.99))}
    assert accuracies(race(recipes, float, 1, 0.9)) == {"plain": [0.95], "fast": [0.9]}
    with pytest.raises(SystemExit) as caught:
        race(recipes, float, 1, 0.999)
    assert caught.value.code == 2
    assert "fast did not reach 0.9990 in round 0, but 0.9900" in capsys.readouterr().err
