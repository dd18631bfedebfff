"""The studies of random networks: small runs, and the rules of their claims on numbers made for them."""

import inspect
import math

import pytest
import torch

import fpstab.experiments.random_networks as studies
from fpstab.ensembles import RandomNetworkBatch, RandomNetworks
from fpstab.ensembles.census import fixed_point_census
from fpstab.experiments.random_networks import contraction, counts, heavy_areas, laws, realisations, slopes, trained
from fpstab.experiments.random_networks.censuses import Tally, census_block, first_seed, tallies


def tally(depth, q, *, fixed=None, stable=None, **law):
    n = len(q)
    shares = dict.fromkeys(("cycle", "slow", "bounded", "diverged", "nonfinite"), (0.0,) * n)
    fixed = tuple(fixed or [1.0 if each else 0.0 for each in q])
    return Tally({"depth": depth} | law, tuple(range(n)), tuple(q), tuple(stable or q), shares | {"fixed": fixed})


def test_every_study_has_the_papers_size():
    assert studies.FULL.keys() == set(studies.__all__) - {"FULL", "SCHEMATIC"}
    for name, full in studies.FULL.items():
        parameters = inspect.signature(getattr(studies, name)).parameters
        assert {"seed", "out", "jobs", "backend", "progress", *full} <= parameters.keys()
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert {
        "paper 1, Figure 1",
        "paper 1, Figure 3",
        "paper 1, Figure 4",
        "paper 2, Figure 2",
    } == studies.SCHEMATIC.keys()


def test_a_tally_is_the_census_of_its_seeds(tmp_path):
    law = {"depth": 2, "width": 10}
    (found,) = tallies([law], 30, seed=1, out=tmp_path)
    assert found.seeds == tuple(range(first_seed(1, 2), first_seed(1, 2) + 30))
    census = fixed_point_census(RandomNetworks(**law).from_seeds(found.seeds))
    assert found.q == tuple(census.q.tolist())
    assert found.stable == tuple(census.q_stable.tolist())
    row = found.row()
    assert row["q_mean"] == pytest.approx(float(census.q.double().mean()))
    assert row["q_error"] == pytest.approx(float(census.q.double().std()) / math.sqrt(30))
    assert sum(row[key] for key in ("p0", "p1", "p2", "p3", "p4", "p5_or_more")) == pytest.approx(1)
    shares = ("converged", "share_cycle", "share_slow", "share_bounded", "share_diverged", "share_nonfinite")
    assert sum(row[key] for key in shares) == pytest.approx(1)
    assert len(list((tmp_path / "blocks").iterdir())) == 2
    assert tallies([law], 30, seed=1, out=tmp_path) == [found]
    assert census_block(first=found.seeds[3], count=1, **law)["q"] == [found.q[3]]


def test_the_commonest_number():
    few = tally(2, [2] * 30 + [1] * 5)
    assert (few.mode, few.p(1)) == (2, 5 / 35)
    assert few.lead(2, 1) == pytest.approx((25 / 35) / math.sqrt((1 - (25 / 35) ** 2) / 35))
    assert tally(2, [0, 1, 1, 0]).mode == 0


def test_the_rule_of_the_schematic_figure():
    printed = [tally(depth, [q] * 40) for depth, q in counts.PRINTED.items()]
    assert counts.mode_finding(counts.MODE_2, printed).verdict == "reproduced"
    wrong = [*printed[:2], tally(5, [1] * 38 + [5] * 2), printed[3]]
    assert counts.mode_finding(counts.MODE_2, wrong).verdict == "not reproduced"
    close = [*printed[:2], tally(5, [1] * 21 + [5] * 19), printed[3]]
    assert counts.mode_finding(counts.MODE_2, close).verdict == "inconclusive"
    assert counts.mode_finding(counts.MODE_2, [tally(2, [1] * 10)]).verdict == "inconclusive"
    assert counts.mode_finding(counts.MODE_2, []).verdict == "inconclusive"


def test_the_rules_on_shares():
    def verdict(claim, threshold, yes, no):
        return counts.share_finding(claim, [True] * yes + [False] * no, threshold, "").verdict

    assert verdict(counts.MANY, 0.5, 40, 10) == "reproduced"
    assert verdict(counts.MANY, 0.5, 10, 40) == "not reproduced"
    assert verdict(counts.MANY, 0.5, 24, 26) == "inconclusive"
    assert verdict(counts.PARTITION, 0.95, 50, 0) == "reproduced"
    assert verdict(counts.PARTITION, 0.95, 25, 25) == "not reproduced"
    assert verdict(counts.PARTITION, 0.95, 0, 50) == "not reproduced"
    assert verdict(counts.PARTITION, 0.95, 46, 4) == "inconclusive"
    assert verdict(counts.PARTITION, 0.95, 10, 0) == "inconclusive"


def test_number_by_depth():
    study = studies.number_by_depth(depths=(1, 2), networks=25, width=10)
    assert [row["depth"] for row in study.table()] == [1, 2]
    verdicts = {finding.claim.item: finding.verdict for finding in study.findings}
    assert verdicts["Figure 2 (schematic)"] in ("not reproduced", "inconclusive")
    assert verdicts["Proposition 2"] == "inconclusive"  # not deep enough
    assert study.plot().axes[0].get_ylabel().startswith("share of networks")
    assert study.scalars()["L1/q_mean"] == study.rows[0]["q_mean"]


def test_readings():
    study = studies.readings(depths=(2, 3), networks=5, laws=("bias=none, width=10", "scale=0.3, width=10"), deepest=0)
    assert study.scalars()["odd_without_bias"] == 1
    assert study.findings[0].verdict == "inconclusive"
    assert len(study.rows) == 4
    with pytest.raises(ValueError, match="expected 'NAME=VALUE"):
        studies.readings(laws=("biases=none",))
    assert counts.parse_reading("distribution=stable(1.5), width=7") == {"distribution": "stable(1.5)", "width": 7}
    assert all(counts.parse_reading(text) for text in studies.FULL["readings"]["laws"])
    assert len(set(studies.FULL["readings"]["laws"])) == 27


def test_unit_biases():
    def verdict(one, other, depth=20):
        return counts._unit_bias(
            tally(depth, [1] * one + [0] * (40 - one)), tally(depth, [1] * other + [0] * (40 - other))
        ).verdict

    assert verdict(40, 10) == "corrected"
    assert verdict(40, 39) == "reproduced"
    assert verdict(20, 10) == "inconclusive"
    assert verdict(40, 10, depth=5) == "inconclusive"


def test_light_tails():
    study = studies.light_tails(
        distributions=("normal",), activations=("hardtanh",), widths=(100,), depths=(1, 2), networks=25
    )
    proposition, proof = study.findings
    assert proposition.verdict in ("corrected", "reproduced")
    assert proof.verdict == "corrected"
    assert study.rows[1]["p1"] == 1
    for row in study.rows:
        assert row["gradient_max"] <= row["bound_max"]


def test_the_rules_on_laws():
    def verdict(single, deep):
        return laws._proposition([tally(1, single), tally(2, deep)]).verdict

    assert verdict([1] * 25, [1] * 25) == "reproduced"
    assert verdict([1] * 24 + [0], [1] * 25) == "corrected"
    assert verdict([1] * 25, [1] * 24 + [3]) == "not reproduced"
    assert verdict([1] * 20, [1] * 25) == "inconclusive"

    def similar(n, k):
        return laws._similarity(
            [
                tally(2, [1] * (n // 2) + [0] * (n - n // 2), activation="hardtanh"),
                tally(2, [1] * k + [0] * (n - k), activation="tanh"),
            ]
        ).verdict

    assert similar(200, 100) == "reproduced"
    assert similar(50, 50) == "not reproduced"
    assert similar(50, 25) == "inconclusive"
    with pytest.raises(ValueError, match="hardtanh"):
        studies.activations(names=("tanh",))


def test_slopes_in_closed_form():
    weight = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    linear = RandomNetworkBatch((weight,), (), "identity")
    assert slopes.gradient(linear) == pytest.approx(3)
    assert slopes.over_pairs(linear) == pytest.approx(3)
    assert 3 <= slopes.product_of_norms(linear) < 3 + 1e-9
    sigmoid = RandomNetworkBatch((weight,), (), "sigmoid")
    assert slopes.gradient(sigmoid) == pytest.approx(3 / 4)  # at 0, a node
    assert 3 / 4 <= slopes.product_of_norms(sigmoid) < 3 / 4 + 1e-9
    assert math.isnan(slopes.critical(lambda beta: 2.0))
    assert slopes.critical(lambda beta: math.exp(-5 * (beta - 0.4) ** 3)) == pytest.approx(0.4, abs=0.05)
    assert slopes.sigmoid_critical(10**9) > 0.43


def test_by_beta():
    study = studies.by_beta(widths=(400,), activations=("tanh", "hardtanh", "sigmoid"), betas=(0.2, 0.6), draws=3)
    for row in study.rows:
        assert 0 < row["g"] <= row["upper"]
    values = study.scalars()
    assert values["tanh/N400/beta_cr"] == pytest.approx(0.506, abs=0.01)
    assert values["sigmoid/N400/beta_cr"] == pytest.approx(0.273, abs=0.015)
    verdicts = [finding.verdict for finding in study.findings]
    assert verdicts == ["reproduced", "inconclusive", "reproduced", "inconclusive"]
    with pytest.raises(ValueError, match="draws=0"):
        studies.by_beta(draws=0)


def test_the_rule_on_sigmoid():
    def verdict(at_400, at_1600):
        found = contraction._betas_found({("sigmoid", 400): (at_400, 0.001), ("sigmoid", 1600): (at_1600, 0.001)}, 3)
        return found[1].verdict

    assert verdict(0.25, 0.25) == "reproduced"
    assert verdict(0.272, slopes.sigmoid_critical(1600)) == "corrected"
    assert verdict(0.4, 0.4) == "not reproduced"


def test_by_layers():
    study = studies.by_layers(width=40, depth=2, draws=1, certified=1)
    for row in study.rows:
        assert row["pairs"] <= 1.001 * row["gradient"] <= 1.002 * row["product"]
        assert row["certified"] is None or row["pairs"] <= row["certified"] <= row["product"] * (1 + 1e-9)
    assert study.findings[0].claim is contraction.DEPTH
    geometric = {0.4: [1.5, 1.4, 1.1], 0.6: [0.55, 0.56, 0.55]}
    assert contraction._depth_found(geometric, 4, 2).verdict == "corrected"
    assert contraction._depth_found({0.4: [1.5, 1.5], 0.6: [0.5, 0.5]}, 4, 2).verdict == "reproduced"
    assert contraction._depth_found({0.4: [1.5, 1.5], 0.6: [0.5, 0.9]}, 4, 2).verdict == "not reproduced"
    bad = [{"pairs": 2.0, "gradient": 1.0, "product": 3.0, "certified": None}]
    assert contraction._bracket_found(bad).verdict == "not reproduced"
    with pytest.raises(ValueError, match="depth=0"):
        studies.by_layers(depth=0)


def test_areas():
    study = studies.areas(depths=(1,), networks=20, widths=(50,), draws=8)
    assert study.findings[0].verdict == "not reproduced"
    block = heavy_areas.areas_block(depth=1, first=0, count=3)
    assert abs(block["contracting"] - block["converging"]) <= 1 - block["agreement"] + 1e-12
    assert study.scalars()["cauchy/N50/relative_spread"] > study.scalars()["normal/N50/relative_spread"]
    assert len(study.plot().axes) == 4


def test_realisations_are_found_and_named(tmp_path):
    study = studies.basins_of_realisations(wanted=((2, 2), (1, 99)), limit=25, resolution=11, out=tmp_path)
    gauss, two, none = study.table()
    assert gauss["distribution"] == "normal"
    assert int(fixed_point_census(RandomNetworks(2).from_seeds([two["seed"]])).q) == 2
    assert none["seed"] is None
    by_item = {finding.claim.item: finding for finding in study.findings}
    assert by_item["Figure 2b"].verdict == by_item["Figure 1b"].verdict == "reproduced"
    assert str(two["seed"]) in by_item["Figure 2b"].said
    assert by_item["Figure 1a (paper 1: 2a)"].verdict == "corrected"
    assert len(study.plot().axes) == 2
    assert realisations._interior([(0.5, True)] * 3 + [(1.2, False)]).verdict == "corrected"
    assert realisations._interior([(0.5, True), (0.5, False), (0.1, True)]).verdict == "not reproduced"
    with pytest.raises(ValueError, match="limit=0"):
        studies.basins_of_realisations(limit=0)


def test_the_rules_on_the_toy():
    good, bad = ({"holds": holds, "distance": 0.01, "stable": 5} for holds in (True, False))
    assert trained._findings([good, good], [bad])[0].verdict == "corrected"
    assert trained._findings([good, bad], [bad])[0].verdict == "not reproduced"
    assert [f.verdict for f in trained._findings([good, good], [good])] == ["reproduced", "reproduced"]
    with pytest.raises(ValueError, match="seeds=0"):
        studies.trained_toy(seeds=0)


@pytest.mark.slow
def test_trained_toy():
    study = studies.trained_toy(seeds=1, printed_seeds=1, epochs=1)
    assert [row["initial"] for row in study.rows] == ["1/√n", "1/√L"]
    assert len(study.plot().axes) == 2
