"""The grid in small sizes: counts, pairs, verdicts, and certificates that simulation could refute."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fpstab.experiments.dynamics import dynamics_grid828, grid
from fpstab.experiments.dynamics.certificates import count, judge_stack
from fpstab.experiments.dynamics.models import GRID, MAPS, Model
from fpstab.stability import StabilityCertificate, certificates
from fpstab.stability.stacked_attractors import classify_stack
from fpstab.stability.stacks import ChainStack

THREE = [MAPS[k] for k in (1, 10, 21)]


@pytest.fixture(scope="module")
def shallow():
    """Three maps, one layer, all activations, with and without bias."""
    numbers = [k for k, model in enumerate(GRID) if model.depth == 1 and model.map in THREE]
    assert len(numbers) == 36
    return dynamics_grid828(models=numbers)


def test_counts_are_those_of_the_rows(shallow):
    models = [row for row in shallow.rows if row["kind"] == "model"]
    assert len(models) == 36
    for name in ("activated", "linear"):
        counted = {
            row["label"]: row["models"]
            for row in shallow.rows
            if row["kind"] == "count" and row["convention"] == name and row["activation"] == "all"
        }
        labels = [row[f"{name}/label"] for row in models]
        assert counted == {label: labels.count(label) for label in counted}
        assert sum(counted.values()) == 36
        assert shallow.values[f"{name}/single"] == counted["single"]
    assert all(sum(int(part.split(":")[1]) for part in row["activated/starts"].split()) == 24 for row in models)


def test_sigmoid_is_always_certified_and_single(shallow):
    """Two weights of norm ≤ 1.5 and two slopes of ¼: a product of 0.14."""
    for row in shallow.rows:
        if row["kind"] == "model" and row["activation"] == "Sigmoid":
            assert row["activated/label"] == "single"
            assert "R1-2" in row["certificates"]
            assert row["value"] <= 1.5**2 / 16 + 1e-9


def test_no_certificate_is_refuted(shallow):
    assert shallow.values["certificates/false"] == 0
    assert shallow.values["certificates/global"] >= 12
    certified = [row for row in shallow.rows if row.get("value", math.inf) < 1]
    assert {row["activated/label"] for row in certified} <= {"single", "undetermined"}
    assert all(row["simulated"] >= 64 for row in certified)


def test_verdicts_of_the_subset(shallow):
    verdict = {each.claim: each.verdict for each in shallow.findings}
    assert verdict[grid.NUMBER] == "reproduced"
    assert verdict[grid.CHAOS] in ("reproduced", "inconclusive")  # 36 are not all 828
    changed = [
        (a, b)
        for a, b in zip(shallow.rows[::2], shallow.rows[1::2], strict=False)
        if a["kind"] == "model" and a["activated/label"] != b["activated/label"]
    ]
    assert verdict[grid.BIAS] == ("not reproduced" if changed else verdict[grid.BIAS])
    assert len(shallow.plot().axes) == 2


def row_of(label, model, rho=0.5, starts="fixed:24", weights=0.5):
    return {
        "activated/label": label,
        "activated/starts": starts,
        "activated/rho_max": rho,
        "weights_rho": weights,
    } | model.row()


def test_rules_of_the_theorem():
    model = Model(MAPS[1], 1, "Tanh", False)
    good = [(row_of("single", model), model, "activated", "single")] * 8
    assert grid._sufficient(good).verdict == grid._necessary(good).verdict == "reproduced"
    assert grid._sufficient(good[:7]).verdict == "inconclusive"
    cycle = (row_of("cycle", model), model, "activated", "cycle")
    assert grid._sufficient([*good, cycle]).verdict == "not reproduced"
    free = (row_of("cycle", model, weights=1.1), model, "activated", "cycle")  # does not meet the condition
    assert grid._sufficient([*good, free]).verdict == "reproduced"
    above = (row_of("single", model, rho=1.2), model, "activated", "single")
    assert grid._necessary([*good, above]).verdict == "not reproduced"
    sigmoid = Model(MAPS[1], 1, "Sigmoid", False)  # Λ = σ(z)/z is large at 0 whatever the network does
    assert grid._necessary([*good, (above[0], sigmoid, "activated", "single")]).verdict == "inconclusive"


def test_rule_of_the_bias():
    models = [Model(linear, 1, "Tanh", bias) for linear in MAPS[:8] for bias in (False, True)]
    rows = [row_of("single", model) for model in models]
    assert grid._bias(models, rows, ["activated"]).verdict == "reproduced"
    rows[3] = row_of("cycle", models[3])
    found = grid._bias(models, rows, ["activated"])
    assert (found.verdict, found.value, found.sample) == ("not reproduced", 1.0, 8)
    rows[3] = row_of("undetermined", models[3])
    assert grid._bias(models, rows, ["activated"]).verdict == "inconclusive"  # seven pairs are left


def test_a_false_certificate_would_be_seen(monkeypatch):
    """A bistable network, a rotation and a contraction, all of which are said to be contractions of rate 0.5."""
    weights = torch.stack([2 * torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]), 0.4 * torch.eye(2)])[:, None]
    stack = ChainStack(weights, None, [nn.Tanh()])

    def lie(net, **_):
        said = certificates.judged("R1-2", 0.5, "a lie", "", "")
        local = StabilityCertificate("R5-0", True, 0.5, "x̂ = (0, 0).", "", "", "local")
        return SimpleNamespace(certificates=(said, local))

    monkeypatch.setattr("fpstab.experiments.dynamics.certificates.stability_criteria", lie)
    bistable, turning, fine = judge_stack(stack, classify_stack(stack))
    assert any("stay" in each for each in bistable.false)
    assert any("label" in each for each in bistable.false)
    assert any("two points" in each for each in turning.false)
    assert fine.false == ()
    assert fine.certified
    assert count([bistable, turning, fine]) == {"R1-2": 3, "R5": 3}


def test_subsets():
    assert grid._numbers(None) == list(range(828))
    assert len(set(grid._numbers(41))) == 41
    pairs = grid._numbers(8)
    assert all(
        GRID[a].bias < GRID[b].bias and GRID[a].map == GRID[b].map for a, b in zip(pairs[::2], pairs[1::2], strict=True)
    )
    assert grid._numbers([5, 3]) == [5, 3]
    for wrong in (0, 829, [], [828]):
        with pytest.raises(ValueError, match="models="):
            grid._numbers(wrong)
    with pytest.raises(ValueError, match="conventions"):
        dynamics_grid828(models=2, conventions=("both",))


def test_without_certificates():
    calls = []
    study = dynamics_grid828(
        models=4, conventions=("linear",), certificates=False, progress=lambda *at: calls.append(at)
    )
    assert "certificates" not in study.rows[0]
    assert calls[-1] == (4, 4)
    assert study.status.message == ""
