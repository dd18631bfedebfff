"""The studies of paper 3 in small sizes: rows against the networks themselves, verdicts against their rules."""

import math

import pytest
import torch
from torch import nn

from fpstab.activations import APLU, activation_info
from fpstab.experiments import dynamics
from fpstab.experiments.claims import Claim, Study
from fpstab.experiments.dynamics import activation_chart, counterexamples, layers, regions
from fpstab.experiments.dynamics.attractor_types import TYPES
from fpstab.experiments.dynamics.measures import by_share, draw_model, look
from fpstab.experiments.dynamics.models import MAPS, Model, draw_parameters
from fpstab.stability.plots import plane

SMALL = [name for name in dynamics.__all__ if name.startswith("dynamics_fig")]
CLAIM = Claim(3, "Figure 0", "It is so.", "share")


@pytest.fixture(scope="module")
def studies():
    found = {}
    for name in SMALL:
        sizes = {} if name == "dynamics_fig1" else {"draws": 1}
        if name in ("dynamics_fig3", "dynamics_fig7"):
            sizes["size"] = 9
        found[name] = getattr(dynamics, name)(seed=1, **sizes)
    return found


def rows_of(study, kind):
    return [row for row in study.rows if row.get("kind") == kind]


def test_every_study_is_listed_with_its_paper_sizes():
    assert set(dynamics.FULL) == set(dynamics.__all__) - {"FULL"}


@pytest.mark.parametrize("name", SMALL)
def test_studies_are_whole(studies, name):
    study = studies[name]
    assert isinstance(study, Study)
    assert study.findings
    assert all(finding.claim.paper == 3 and finding.claim.rule for finding in study.findings)
    if name != "dynamics_fig1":  # one draw is too few for any share
        shares = [finding for finding in study.findings if finding.claim not in (regions.SIGMOID, layers.RADII)]
        assert {finding.verdict for finding in shares} <= {"inconclusive", "not reproduced"}
    assert len(study.plot().axes) >= 2
    columns = set(study.table()[0])
    assert all(set(row) == columns for row in study.table())


def test_the_rule_of_shares():
    assert by_share(CLAIM, [True] * 9 + [False], "").verdict == "reproduced"
    assert by_share(CLAIM, [True] * 4 + [False] * 6, "").verdict == "not reproduced"
    assert by_share(CLAIM, [True] * 5 + [False] * 5, "").verdict == "inconclusive"
    assert by_share(CLAIM, [True] * 7, "").verdict == "inconclusive"
    assert by_share(CLAIM, [True] * 8, "x").said == "In 8 of 8 draws. x"


def test_rows_of_figure_2_are_the_networks(studies):
    """Arrows, orbits and eigenvalues against a loop over layers."""
    study = studies["dynamics_fig2"]
    (name, model) = layers.FIGURE_2[1]
    weights, _ = draw_parameters(model.map, model.depth, 1)

    def f(x):
        for W in weights:
            x = torch.tanh(W @ x)
        return x

    panel = [row for row in study.rows if name in row["panel"] and "\n" in row["panel"]]
    arrows = [row for row in panel if row["kind"] == "arrow"]
    assert len(arrows) == 576
    for row in arrows[::97]:
        x = torch.tensor([row["x1"], row["x2"]], dtype=torch.float64)
        assert torch.allclose(f(x) - x, torch.tensor([row["dx1"], row["dx2"]], dtype=torch.float64), atol=1e-12)
    orbit = [row for row in panel if row["kind"] == "orbit" and row["orbit"] == 3]
    assert [row["step"] for row in orbit] == list(range(61))
    x = torch.tensor([orbit[20]["x1"], orbit[20]["x2"]], dtype=torch.float64)
    assert torch.allclose(f(x), torch.tensor([orbit[21]["x1"], orbit[21]["x2"]], dtype=torch.float64), atol=1e-12)
    values = [row for row in panel if row["kind"] == "eigenvalue"]
    assert len(values) == 2 * 576
    for k in (0, 500):
        first, second = values[2 * k : 2 * k + 2]
        h = torch.tensor([first["x1"], first["x2"]], dtype=torch.float64)
        A = torch.eye(2, dtype=torch.float64)
        for W in weights:
            z = W @ h
            h = torch.tanh(z)
            A = torch.diag(h / z) @ W @ A
        trace = first["real"] + second["real"]
        assert trace == pytest.approx(float(A.trace()), abs=1e-12)


def test_regions_are_spectral_radii(studies):
    rows = rows_of(studies["dynamics_fig3"], "region")
    assert len(rows) == 5 * 81
    weights, _ = draw_parameters(regions.FIGURE_3[0].map, 4, 1)
    for row in rows[10:81:17]:
        h, A = torch.tensor([row["x1"], row["x2"]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        for W in weights:
            z = W @ h
            h = z.relu()
            A = torch.diag((z > 0).double()) @ W @ A
        assert row["value"] == pytest.approx(float(torch.linalg.eigvals(A).abs().max()), abs=1e-12)


def test_the_fixed_point_of_a_biased_layer(studies):
    """It solves x = f(x), and is not the last bias."""
    study = studies["dynamics_fig4"]
    (point,) = [row for row in rows_of(study, "fixed point") if "bias" in row["panel"]]
    weights, biases = draw_parameters(regions.FIGURE_4[0].map, 1, 1)
    x = torch.tensor([point["x1"], point["x2"]], dtype=torch.float64)
    value = x
    for W, b in zip(weights, biases, strict=True):
        value = torch.relu(W @ value + b)
    assert torch.allclose(value, x, atol=1e-9)
    assert float((x - biases[-1]).norm()) > 1e-3
    network = next(row for row in rows_of(study, "network") if row["bias"])
    assert (network["b1"], network["b2"]) == tuple(biases[-1].tolist())


def test_the_verdict_on_the_last_bias_follows_its_rule():
    draws = draw_model(regions.FIGURE_4[0], seed=0, draws=8)
    assert regions._last_bias(draws).verdict == "corrected"
    assert regions._last_bias(draws[:7]).verdict == "inconclusive"
    constant = draw_model(regions.FIGURE_4[1], seed=0, draws=8)  # without bias x̄ = b_L = 0
    assert regions._last_bias(constant).verdict == "reproduced"


def test_the_verdict_on_sigmoid_follows_its_rule():
    draws = draw_model(regions.FIGURE_3[3], seed=0, draws=8)
    assert regions._sigmoid(draws).verdict == "corrected"
    relu = draw_model(regions.FIGURE_3[0], seed=0, draws=8)  # nothing there to explain, and one fixed point
    assert regions._sigmoid(relu[:5]).verdict == "inconclusive"


def test_depth_by_closed_form():
    """Λ ≤ 1 of GELU: ρ(A*) ≤ Π‖W‖, which falls with depth for weights in (0, 1)."""
    for depth in (1, 4):
        for draw in draw_model(Model(layers.FIGURE_5[0][1], depth, "GELU", False), seed=0, draws=4):
            norms = torch.linalg.matrix_norm(draw.stack.weights[0], 2).prod()
            assert draw.rho_max <= float(norms) + 1e-12


def test_the_line_is_one():
    (draw,) = draw_model(TYPES["line"], seed=1, draws=1)
    assert draw.label == "line"
    assert float((draw.eigenvalues - 1).abs().min()) <= 1e-12
    panel = look(draw, "line", size=5)
    assert float((panel.tails - panel.tails[:, :1]).abs().max()) <= 1e-12  # it rests everywhere
    assert float((panel.tails[..., 0] - panel.tails[..., 1]).abs().max()) <= 1e-12  # on x₁ = x₂


@pytest.mark.parametrize("sigma", [*activation_chart.STABLE_LIST, *activation_chart.UNSTABLE_LIST])
def test_scans_are_within_the_table(sigma):
    found = activation_chart.scan(sigma)
    if type(sigma).__module__.startswith("torch"):
        info = activation_info(sigma)
        assert found.value_at_zero == pytest.approx(info.value_at_zero, abs=1e-12)
        assert found.lipschitz <= info.lipschitz + 1e-9
        assert found.lipschitz == pytest.approx(info.lipschitz, rel=2e-3)
        assert found.bounded == info.bounded
        if info.sector < math.inf:
            assert found.sector <= info.sector + 1e-9
            assert found.sector == pytest.approx(info.sector, rel=2e-3)


def test_the_adaptive_unit_of_figure_1_is_not_relu():
    unit = next(each for each in activation_chart.UNSTABLE_LIST if isinstance(each, APLU))
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    hinges = unit.b.detach().double()[0]
    expected = z.relu() + 0.5 * (hinges[:, None] - z).clamp(min=0).sum(0)
    assert torch.allclose(activation_chart.evaluate(unit, z), expected, atol=1e-6)


def test_figure_1_without_any_number_of_its_own(studies):
    finding = {each.claim: each for each in studies["dynamics_fig1"].findings}
    assert finding[activation_chart.ASYMPTOTIC].verdict == "corrected"
    assert "GELU" in finding[activation_chart.ASYMPTOTIC].said
    assert "Hardswish" in finding[activation_chart.UNSTABLE].said.split("; not for ")[1]
    assert finding[activation_chart.BIBO].verdict == "corrected"
    assert activation_chart._asymptotic([activation_chart.scan(nn.Tanh(), "stable")]).verdict == "reproduced"
    assert activation_chart._asymptotic([activation_chart.scan(nn.SELU(), "stable")]).verdict == "not reproduced"
    assert activation_chart._unstable([activation_chart.scan(nn.SELU(), "unstable")]).verdict == "reproduced"
    assert activation_chart._unstable([activation_chart.scan(nn.Softplus(), "unstable")]).verdict == "corrected"
    assert activation_chart._unstable([activation_chart.scan(nn.Tanh(), "unstable")]).verdict == "not reproduced"


def test_the_theorem():
    found = {each.claim: each for each in counterexamples.theorem_findings(0)}
    assert {each.verdict for each in found.values()} == {"not reproduced"}
    assert found[counterexamples.NECESSARY].value == pytest.approx(2.0, abs=1e-9)
    # a network that meets both the criterion and the facts
    half = 0.5 * torch.eye(2, dtype=torch.float64)
    assert counterexamples._farthest(counterexamples._network([half], activated=True)) < 9


def test_table_1_has_the_rows_of_the_paper():
    study = dynamics.dynamics_table1(draws=1)
    figures = [row["figure"] for row in study.rows]
    assert [figures.count(f"Figure {k}") for k in (2, 3, 4, 5)] == [3, 4, 2, 9]
    assert len(figures) == 24
    assert study.findings[0].verdict == "reproduced"
    assert len(study.plot().axes) == 1


def test_no_draw_is_refused():
    with pytest.raises(ValueError, match="draws=0"):
        dynamics.dynamics_fig2(draws=0)


def test_grid_points_are_the_papers():
    assert len(plane(24)) == 576
    assert len(MAPS) * 36 == 828
