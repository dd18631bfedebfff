import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.orbits import Orbits, shadowing
from fpstab.results import AnalysisError
from tests.orbits import brute


def sample(n=40, states=4, m=3, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return brute.softmax(2 * rng.normal(size=(n, states, m))), rng.integers(0, classes, n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["autonomous", "depth"]))
def test_through_one_block_no_chain_is_traced_worse_than_its_step(seed, mode):
    """For T = 1 the start's own orbit traces its chain: at distance 0 and at its step."""
    outputs, labels = sample(states=2, seed=seed)
    if mode == "depth":
        outputs[:, 0] = outputs[:, 1]
    found = shadowing(Orbits(outputs, labels), mode)
    assert bool((found.epsilons <= found.deltas).all())


def test_rules():
    outputs, labels = sample(120)
    orbits = Orbits(outputs, labels)
    best, least, curve = (shadowing(orbits, rule=rule) for rule in ("best_traced", "min_min", "curve"))
    deltas, epsilons = best.deltas.numpy(), best.epsilons.numpy()
    i = epsilons.argmin()
    assert (best.start, best.delta, best.epsilon) == (i, deltas[i], epsilons[i])
    assert best.value == deltas[i] / epsilons[i]
    assert best.chain == tuple(best.chains[i].tolist())
    assert least.value == deltas.min() / epsilons.min()
    assert best.curve is None
    for epsilon, delta, ratio in curve.curve.tolist():
        assert epsilon in epsilons
        assert delta == deltas[epsilons > epsilon].min()
        assert ratio == delta / epsilon
    assert curve.value == curve.curve[:, 2].min()
    assert curve.delta == deltas[curve.start]
    assert epsilons[curve.start] > curve.epsilon
    assert len(curve.curve) == 9


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["autonomous", "depth"]))
def test_greedy_chains_overestimate_the_step_that_is_not_traced(seed, mode):
    outputs, labels = sample(6, 3, seed=seed)
    greedy = shadowing(Orbits(outputs, labels), mode)
    exact = shadowing(Orbits(outputs, labels), mode, exact=True)
    assert len(exact.deltas) == 6**3
    chains = {tuple(chain) for chain in exact.chains.tolist()}
    assert {tuple(chain) for chain in greedy.chains.tolist()} <= chains
    for epsilon in exact.epsilons.unique().tolist():
        beyond = greedy.deltas[greedy.epsilons > epsilon]
        if len(beyond):
            assert exact.deltas[exact.epsilons > epsilon].min() <= beyond.min()


def test_orbits_of_an_isometry_that_all_images_share():
    """Points on a circle turned by one place: each image steps on its neighbour, the start's orbit traces it exactly."""
    n, states = 12, 5
    angles = 2 * np.pi * (np.arange(n)[:, None] + np.arange(states)) / n
    outputs = np.stack((np.cos(angles), np.sin(angles)), 2)
    found = shadowing(Orbits(outputs, np.arange(n) % 2, "logit"))
    assert found.chains.tolist() == [[(i + t) % n for t in range(states)] for i in range(n)]
    assert found.tracers.tolist() == list(range(n))
    assert float(found.deltas.max()) < 1e-14
    assert float(found.epsilons.max()) < 1e-14


def test_nothing_over_nothing_is_flagged_and_not_raised():
    outputs = np.zeros((5, 3, 2))
    for rule in ("best_traced", "min_min", "curve"):
        found = shadowing(Orbits(outputs, [0, 1, 0, 1, 0]), rule=rule)
        assert math.isnan(found.value)
        assert found.status.code == "undefined"
        assert found.chains.tolist()[3] == [3, 0, 1]  # the lowest not yet visited


def test_steps_over_nothing_are_infinite():
    outputs = np.array([[[0.0], [1.0]], [[3.0], [3.0]]])
    found = shadowing(Orbits(outputs, [0, 1], "logit"), "depth", same_class=False)
    assert found.deltas.tolist() == [2.0, 2.0]
    y = np.array([[[0.0], [2.0]], [[0.0], [3.0]]])
    exact = shadowing(Orbits(y, [0, 1], "logit"), "depth", exact=True)
    assert exact.value == math.inf or math.isnan(exact.value)


@pytest.mark.parametrize("same_class", [False, True])
def test_too_few_images(same_class):
    outputs, _ = sample(6, 4)
    labels = [0, 0, 0, 1, 1, 1]
    if not same_class:
        outputs, labels = outputs[:3], labels[:3]
    with pytest.raises(AnalysisError, match="visits 4 images, and there are"):
        shadowing(Orbits(outputs, labels), same_class=same_class)
    found = shadowing(Orbits(outputs, labels), same_class=same_class, throw=False)
    assert found.status.code == "too_few_images"
    assert all(math.isnan(value) for value in found.scalars().values())
    assert found.start is None
    assert found.chains.shape == (0, 4)
    assert found.classes() == []


def test_as_many_images_as_states_suffice():
    outputs, labels = sample(4, 4)
    assert shadowing(Orbits(outputs, labels)).chains.sort(1).values.tolist() == [[0, 1, 2, 3]] * 4


def test_by_class():
    outputs, labels = sample(80)
    found = shadowing(Orbits(outputs, labels))
    parts = [found.of_class(label) for label in found.classes()]
    assert sum(len(part.deltas) for part in parts) == 80
    assert min(part.epsilon for part in parts) == found.epsilon
    for label, part in zip(found.classes(), parts, strict=True):
        starts = np.flatnonzero(labels == label)
        assert part.chains[:, 0].tolist() == starts.tolist()
        assert part.epsilon == found.epsilons[starts].min()
    with pytest.raises(ValueError, match="no chain starts there"):
        found.of_class(9)
    kept = shadowing(Orbits(outputs, labels), same_class=True)
    assert all(len(set(labels[chain])) == 1 for chain in kept.chains.tolist())
    assert (labels[kept.tracers] == labels[kept.chains[:, 0]]).all()


def test_table():
    outputs, labels = sample(80)
    rows = shadowing(Orbits(outputs, labels), "depth", "min_min").table()
    assert [row["class"] for row in rows] == ["all", 0, 1, 2]
    assert {(row["N"], row["space"], row["chain_mode"], row["rule"]) for row in rows} == {
        (80, "prob", "depth", "min_min")
    }
    assert len(rows[0]["chain"].split()) == 4


def test_bad_arguments():
    orbits = Orbits(*sample(40))
    for options, message in (
        ({"chain_mode": "auto"}, "chain_mode='auto'"),
        ({"rule": "best"}, "rule='best'"),
        ({"exact": True}, "40 images and 4 states make 2.56e\\+06 sequences"),
    ):
        with pytest.raises(ValueError, match=message):
            shadowing(orbits, **options)
