"""The fast analyses against plain Python on many small systems: the same pairs, chains, tracers and values."""

import functools
import math

import numpy as np
import pytest
import torch

from fpstab.orbits import Orbits, distances, expansivity, pairs, shadowing
from tests.orbits import brute

SYSTEMS = list(brute.systems(225))


@pytest.fixture(params=[False, True], ids=["tiles", "small tiles"])
def _tiles(request, monkeypatch):
    """Small tiles, so that small systems have many, and masses of ties come early."""
    if request.param:
        monkeypatch.setattr(distances, "_ROWS", 7)
        monkeypatch.setattr(distances, "_COLUMNS", 9)
        monkeypatch.setattr(distances, "_SPARE", 1)
        monkeypatch.setattr(distances, "_PAIRS_AT_ONCE", 5)
        monkeypatch.setattr(pairs, "_PAIRS_AT_ONCE", 6)


@functools.cache
def expected_of(analysis, k, *options):
    _, outputs, labels = SYSTEMS[k]
    return analysis(outputs.tolist(), labels.tolist(), *options)


def same(value, expected):
    return value == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("distinct", [False, True], ids=["labels", "distinct"])
@pytest.mark.usefixtures("_tiles")
def test_expansive_pairs(distinct):
    for k, (name, outputs, labels) in enumerate(SYSTEMS):
        orbits = Orbits(outputs, labels, space="logit")
        expected = expected_of(brute.expansive, k, distinct)
        found = expansivity(orbits, pairs="distinct" if distinct else "labels", throw=False)
        for kind in brute.KINDS:
            constant = getattr(found, kind)
            rows = {tuple(sorted(p.classes)): (p.value, p.i, p.j, p.block) for p in constant.pairs}
            assert rows.keys() == expected[kind].keys(), (name, kind)
            for key, (value, i, j, block) in expected[kind].items():
                assert rows[key][1:] == (i, j, block), (name, kind, key)
                assert same(rows[key][0], value), (name, kind, key)
                a, b = (constant.classes.index(label) for label in key)
                assert constant.matrix[a, b] == constant.matrix[b, a] == rows[key][0]
            counted = [row for key, row in expected[kind].items() if distinct or key[0] != key[1]]
            if counted:
                value, i, j, block = min(counted, key=lambda row: row[:3])
                assert (constant.pair, constant.block) == ((i, j), block), (name, kind)
                assert same(constant.value, value)
            else:
                assert math.isnan(constant.value)
                assert found.status.code == "one_class"


@pytest.mark.parametrize("mode", ["autonomous", "depth"])
@pytest.mark.parametrize("same_class", [False, True], ids=["all", "same class"])
@pytest.mark.usefixtures("_tiles")
def test_chains_and_tracers(mode, same_class):
    for k, (name, outputs, labels) in enumerate(SYSTEMS):
        orbits = Orbits(outputs, labels, space="logit")
        expected = expected_of(brute.greedy, k, mode, same_class)
        found = shadowing(orbits, mode, same_class=same_class, throw=False)
        if not expected:
            assert found.status.code == "too_few_images", name
            continue
        assert found.chains.tolist() == [list(row[0]) for row in expected], name
        assert found.tracers.tolist() == [row[3] for row in expected], name
        np.testing.assert_allclose(found.deltas, [row[1] for row in expected], rtol=1e-12, atol=0)
        np.testing.assert_allclose(found.epsilons, [row[2] for row in expected], rtol=1e-12, atol=0)
        chain, delta, epsilon, tracer = min(expected, key=lambda row: (row[2], row[0]))
        assert (found.chain, found.tracer, found.start) == (chain, tracer, chain[0]), name
        if epsilon:
            assert same(found.value, delta / epsilon)
        else:
            assert math.isnan(found.value) if delta == 0 else found.value == math.inf


@pytest.mark.parametrize("mode", ["autonomous", "depth"])
@pytest.mark.parametrize("same_class", [False, True], ids=["all", "same class"])
def test_all_sequences(mode, same_class):
    for name, outputs, labels in brute.systems(45, seed=1, largest=7):
        outputs = outputs[:, :4]
        orbits = Orbits(outputs, labels, space="logit")
        expected = brute.sequences(outputs.tolist(), labels.tolist(), mode, same_class)
        found = shadowing(orbits, mode, same_class=same_class, exact=True)
        assert found.chains.tolist() == [list(row[0]) for row in expected], name
        assert found.tracers.tolist() == [row[3] for row in expected], name
        np.testing.assert_allclose(found.deltas, [row[1] for row in expected], rtol=1e-12, atol=0)
        np.testing.assert_allclose(found.epsilons, [row[2] for row in expected], rtol=1e-12, atol=0)


def test_a_product_in_float32_would_have_been_wrong():
    """What the systems are made for: the distance that `torch.cdist` gives in float32 is another."""
    wrong = 0
    for name, outputs, _ in SYSTEMS:
        if not name.startswith("planted"):
            continue
        y = torch.tensor(outputs, dtype=torch.float32)
        n = len(y)
        d = torch.stack(
            [torch.cdist(y[:, t], y[:, t], compute_mode="use_mm_for_euclid_dist") for t in range(y.shape[1])]
        )
        least = d.amin(0).masked_fill(torch.eye(n, dtype=torch.bool), math.inf)
        expected = min(row[0] for row in brute.expansive(outputs.tolist(), [0] * n)["block"].values())
        wrong += abs(float(least.min()) / expected - 1) > 0.1
    assert wrong > 20
