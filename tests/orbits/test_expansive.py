import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fpstab.orbits import Orbits, expansivity
from fpstab.results import AnalysisError
from tests.orbits import brute


def sample(n=300, states=5, m=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return brute.softmax(2 * rng.normal(size=(n, states, m))), rng.integers(0, classes, n)


def test_against_scipy_on_a_sample_of_many_tiles():
    outputs, labels = sample(1300)
    found = expansivity(Orbits(outputs, labels))
    d = np.stack([cdist(outputs[:, t], outputs[:, t]) for t in range(5)])
    d[:, np.arange(1300), np.arange(1300)] = np.inf
    for constant, measure in ((found.definition, d.max(0)), (found.block, d.min(0)), (found.mean, d.mean(0))):
        for a in range(3):
            for b in range(3):
                expected = measure[np.ix_(labels == a, labels == b)].min()
                assert constant.matrix[a, b] == pytest.approx(expected, rel=1e-12)
        i, j = constant.pair
        assert i < j
        assert labels[i] != labels[j]
        assert measure[i, j] == pytest.approx(constant.value, rel=1e-12)
        assert constant.value == min(constant.matrix[a, b] for a, b in ((0, 1), (0, 2), (1, 2)))
        if constant.block is not None:
            assert d[constant.block, i, j] == pytest.approx(constant.value, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_symmetries(seed, scale, shift):
    """Isometries leave the constants, scaling scales them, the order of images renames the pair."""
    rng = np.random.default_rng(seed)
    outputs, labels = sample(25, 3, 3, seed=seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(25)
    one = expansivity(Orbits(outputs, labels, "logit"), throw=False)
    other = expansivity(Orbits(scale * (outputs @ rotation + shift)[order], labels[order], "logit"), throw=False)
    for kind in brute.KINDS:
        a, b = getattr(one, kind), getattr(other, kind)
        assert b.value == pytest.approx(scale * a.value, rel=1e-6, nan_ok=True)
        if a.pair is not None:
            assert {order[k] for k in b.pair} == set(a.pair)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_the_constants_and_of_samples(seed):
    outputs, labels = sample(40, seed=seed)
    found = expansivity(Orbits(outputs, labels))
    assert found.block.value <= found.mean.value <= found.definition.value
    fewer = expansivity(Orbits(outputs[:30], labels[:30]), throw=False)
    for kind in brute.KINDS:
        assert not getattr(fewer, kind).value < getattr(found, kind).value


def test_pairs_by_prediction():
    outputs, labels = sample(60)
    predicted = outputs[:, -1].argmax(1)
    found = expansivity(Orbits(outputs, labels), pairs="pred")
    assert found.definition.value == expansivity(Orbits(outputs, predicted)).definition.value
    assert found.pairs == "pred"


def test_pairs_that_are_distinct_may_be_of_one_class():
    outputs = np.array([[[0.0], [0.0]], [[0.0], [7.0]], [[-0.0], [9.0]], [[1.0], [0.5]]])
    found = expansivity(Orbits(outputs, [0, 1, 1, 0], "logit"), pairs="distinct")
    assert found.definition.pair == (0, 3)  # 0, 1 and 2 begin alike
    assert found.definition.value == 1.0
    assert found.definition.closest(0, 0).j == 3
    assert expansivity(Orbits(outputs, [0, 1, 1, 0], "logit")).definition.pair == (1, 3)


def test_one_class_has_no_pair():
    orbits = Orbits(np.random.default_rng(0).random((5, 2, 3)), [4] * 5)
    with pytest.raises(AnalysisError, match="all 5 images have one class"):
        expansivity(orbits)
    found = expansivity(orbits, throw=False)
    assert found.status.code == "one_class"
    assert all(math.isnan(value) for value in found.scalars().values())
    assert found.definition.pair is None
    assert found.definition.matrix.shape == (1, 1)
    assert found.definition.matrix[0, 0] > 0  # two images of that class


def test_duplicates_across_classes_are_at_distance_zero_and_that_is_said():
    outputs, labels = sample(20)
    outputs[7] = outputs[3]
    labels[3], labels[7] = 0, 1
    found = expansivity(Orbits(outputs, labels))
    assert found.scalars() == dict.fromkeys(found.scalars(), 0.0)
    assert found.definition.pair == (3, 7)
    assert found.status.ok
    assert "images 3 and 7 of different classes have the same outputs" in found.status.message


def test_a_saturated_softmax_is_said():
    z = np.zeros((4, 2, 3))
    z[:, 0, 0] = [50, 51, 52, 53]
    z[range(4), 1, [0, 1, 2, 0]] = 5
    found = expansivity(Orbits(brute.softmax(z), [0, 1, 2, 0]))
    assert found.status.ok
    assert "expansive_block = " in found.status.message
    assert "saturated" in found.status.message
    assert 0 < found.block.value < 1e-20
    assert found.definition.value > 0.1


def test_a_constant_head():
    found = expansivity(Orbits(np.full((600, 3, 2), 0.5), np.arange(600) % 3))
    assert found.definition.pair == found.block.pair == found.mean.pair == (0, 1)
    assert found.definition.value == 0.0


def test_tables_say_what_they_are_of():
    outputs, labels = sample(30)
    found = expansivity(Orbits(outputs, labels, head="probes"))
    rows = found.table()
    assert [row["constant"] for row in rows] == ["expansive_definition", "expansive_block", "expansive_mean"]
    assert all((row["N"], row["space"], row["head"], row["pairs"]) == (30, "prob", "probes", "labels") for row in rows)
    pairs = found.block.table()
    assert [row["distance"] for row in pairs] == sorted(row["distance"] for row in pairs)
    assert len(pairs) == 6
    assert all(labels[row["i"]] == row["class_i"] and labels[row["j"]] == row["class_j"] for row in pairs)
    assert found.block.closest(2, 1).value == found.block.matrix[1, 2]
    assert found.block.closest(2, 5) is None


def test_bad_arguments():
    outputs, labels = sample(10)
    with pytest.raises(ValueError, match="pairs='classes'"):
        expansivity(Orbits(outputs, labels), pairs="classes")
    with pytest.raises(ValueError, match="1001 classes"):
        expansivity(Orbits(torch.rand(1001, 2, 2), torch.arange(1001)))
