"""Figures 5–7 of paper 1 and its iteration, on a small size."""

import math

import numpy as np
import pytest
import torch

from fpstab.experiments import jacobian_spectra, jacobian_spectra_equations
from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.theory import jacobian_esd


def verdicts(study: Study) -> dict[str, str]:
    return {name: finding.verdict for name, finding in named(study).items()}


def named(study: Study) -> dict[str, Finding]:
    modules = (jacobian_spectra, jacobian_spectra_equations)
    known = {claim: name for module in modules for name, claim in vars(module).items() if isinstance(claim, Claim)}
    return {known[finding.claim]: finding for finding in study.findings}


def test_linear_spectrum() -> None:
    study = jacobian_spectra.linear_spectrum(width=150, draws=8)
    # too narrow for a verdict on the samples
    assert verdicts(study) == {"SAMPLES_MATCH": "inconclusive", "EDGE_IS_SOFT": "inconclusive"}
    assert study.values["ks_distance"] < 0.02
    rows = study.table()
    width = rows[0]["high"] - rows[0]["low"]
    assert sum(row["theory"] for row in rows) * width == pytest.approx(1, abs=1e-9)
    assert sum(row["measured"] for row in rows) * width == pytest.approx(1, abs=0.01)  # some beyond the last bin
    # the theory's bins are integrals of Fuss and Catalan's density
    phi = np.linspace(1e-6, 1, 20001)[1:-1] * math.pi / 3
    lam = np.sin(3 * phi) ** 3 / (np.sin(phi) * np.sin(2 * phi) ** 2)
    rho = np.sin(phi) ** 2 * np.sin(2 * phi) / (math.pi * np.sin(3 * phi) ** 2)
    row = rows[20]
    at = np.linspace(row["low"], row["high"], 101)
    mean = np.interp(at, lam[::-1], rho[::-1]).mean()
    assert row["theory"] == pytest.approx(mean, rel=1e-3)


@pytest.mark.slow
def test_linear_spectrum_at_the_paper_s_width() -> None:
    study = jacobian_spectra.linear_spectrum()
    assert verdicts(study) == {"SAMPLES_MATCH": "reproduced", "EDGE_IS_SOFT": "reproduced"}


def test_spectra_by_depth() -> None:
    study = jacobian_spectra.spectra_by_depth(depths=(1, 2, 6), width=80, draws=2)
    assert verdicts(study) == {
        "MARCHENKO_PASTUR": "reproduced",
        "PEAK_AT_ZERO": "reproduced",
        "DEPTH_CONTRACTS": "not reproduced",
        "CAPTION_OR_TEXT": "corrected",
    }
    assert study.values["linear/L6/edge"] == pytest.approx(7**7 / 6**6)
    assert study.values["linear/L1/below_tenth"] == pytest.approx(
        float(jacobian_esd.density([0.1], "linear", 1).cdf), abs=1e-5
    )
    assert {(row["reading"], row["L"]) for row in study.rows} == {
        (n, L) for n in ("linear", "hardtanh") for L in (1, 2, 6)
    }


def test_a_law_that_did_contract_would_be_said_to() -> None:
    # the rule can go the other way: ReLU's edge falls below 1
    laws = {("relu", L): jacobian_esd.density([0.1], "relu", L) for L in (5, 10)}
    assert jacobian_spectra._contraction(laws, ["relu"], (5, 10)).verdict == "reproduced"


def test_cauchy_spectra() -> None:
    study = jacobian_spectra.cauchy_spectra(depths=(1, 3, 9), width=80, draws=8)
    assert verdicts(study) == {"CAUCHY_PEAK": "reproduced", "CAUCHY_CONTRACTS": "not reproduced"}
    for L in (1, 3, 9):
        rows = [row for row in study.rows if row["L"] == L]
        total = sum(row["share"] for row in rows) + rows[0]["atom"] + rows[0]["unresolved"]
        assert total == pytest.approx(1, abs=0.02)  # the rest is beyond the histogram
    few = jacobian_spectra.cauchy_spectra(depths=(1, 3), width=20, draws=2)
    assert set(verdicts(few).values()) == {"inconclusive"}


def test_solving_iteration() -> None:
    study = jacobian_spectra_equations.solving_iteration(points=12)
    assert verdicts(study) == {"START_AT_ZERO": "corrected", "SINGLE_LAYER": "corrected"}
    assert study.values["linear/L2/zero/0"] == 0
    assert study.values["linear/L2/asymptotic/0"] == 1
    row = next(row for row in study.rows if (row["L"], row["activation"]) == (1, "linear"))
    assert row["exact"] == pytest.approx(math.sqrt((4 - row["lam"]) / row["lam"]) / (2 * math.pi), rel=1e-10)


def test_generating_functions() -> None:
    study = jacobian_spectra_equations.generating_functions(width=100)
    assert verdicts(study) == {"ERF_CONSTANT": "corrected", "WRONG_LABEL": "corrected"}
    assert [row["measured"] for row in study.rows[:2]] == pytest.approx(
        [1 / math.sqrt(1 + math.pi / 2), 1 / math.sqrt(1 + math.pi)]
    )
    assert study.rows[0]["printed"] * math.sqrt(2) == pytest.approx(study.rows[0]["corrected"])


@pytest.mark.parametrize(
    ("name", "sizes", "panels"),
    [
        ("linear_spectrum", {"width": 30, "draws": 2}, 1),
        ("spectra_by_depth", {"width": 30, "draws": 2, "depths": (1, 2)}, 2),
        ("cauchy_spectra", {"width": 30, "draws": 2, "depths": (1, 2)}, 1),
        ("solving_iteration", {"points": 3}, 5),
        ("generating_functions", {"width": 30, "draws": 2}, 1),
    ],
)
def test_studies_are_drawn_and_repeatable(name: str, sizes: dict[str, object], panels: int) -> None:
    state = torch.get_rng_state()
    module = jacobian_spectra if hasattr(jacobian_spectra, name) else jacobian_spectra_equations
    function = getattr(module, name)
    study = function(**sizes, seed=4)
    if "draws" in sizes:
        assert study.table() == function(**sizes, seed=4).table()
    assert torch.equal(state, torch.get_rng_state())
    axes = study.plot().axes
    assert len(axes) == panels
    assert all(ax.get_title() and (ax.lines or ax.patches) for ax in axes)
    assert name in module.FULL


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="draws = 1"):
        jacobian_spectra.linear_spectrum(draws=1)
    with pytest.raises(ValueError, match="at least two, increasing"):
        jacobian_spectra.spectra_by_depth(depths=(3, 2))
    with pytest.raises(ValueError, match="at least two, increasing"):
        jacobian_spectra.cauchy_spectra(depths=(0, 2))
