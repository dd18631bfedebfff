import math

import numpy as np
import pytest

from fpstab.orbits import PRESETS, Orbits, expansivity, orbit_report, shadowing, stability_estimate
from fpstab.results import AnalysisError
from tests.orbits import brute


def sample(n=60, space="prob"):
    rng = np.random.default_rng(0)
    return Orbits(brute.softmax(2 * rng.normal(size=(n, 4, 3))), rng.integers(0, 3, n), space)


@pytest.mark.parametrize(
    ("delta", "epsilon", "printed_shadowing", "lipschitz", "printed"),
    [
        (0.2417, 0.1025, 2.3583, 3.38, 0.6977),
        (0.0920, 0.0933, 0.9867, 3.51, 0.2811),
        (0.1222, 0.1219, 1.0023, 2.37, 0.4229),
    ],
)
def test_arithmetic_of_paper_5_table_2(delta, epsilon, printed_shadowing, lipschitz, printed):
    assert round(stability_estimate(printed_shadowing, lipschitz).value, 4) == printed
    assert delta / epsilon == pytest.approx(printed_shadowing, rel=1e-3)


def test_the_row_of_paper_5_table_2_that_does_not_follow():
    """MNIST, ResNet-50: 0.0031 and δ = 0.0004, ε = 0.1565, unless δ was truncated from 0.00048…"""
    assert stability_estimate(0.0031, 1.77).value == pytest.approx(0.0017, abs=1e-4)
    assert round(0.0004 / 0.1565, 4) == 0.0026
    assert 0.0004 < 0.0031 * 0.1565 < 0.0005


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets(name):
    orbits, preset = sample(), PRESETS[name]
    report = orbit_report(orbits, name, lipschitz={"logits": 2.0, "probabilities": 0.5})
    direct = shadowing(orbits, preset.chain_mode, preset.rule)
    assert report.shadowing.value == direct.value
    assert report.constant.value == getattr(expansivity(orbits), preset.constant).value
    scalars = report.scalars()
    assert scalars["stability_logits"] == direct.value / 2
    assert scalars["stability_probabilities"] == direct.value / 0.5
    (row,) = report.table()
    assert (row["N"], row["space"], row["head"], row["rule"]) == (60, "prob", "final", preset.rule)
    assert row["g_expansive"] == report.constant.value
    assert row["lipschitz_logits"] == 2.0


def test_what_fails_is_said_and_the_rest_is_there():
    orbits = Orbits(sample().outputs[:5], [1] * 5)
    report = orbit_report(orbits, throw=False)
    assert report.status.code == "one_class"
    assert math.isfinite(report.shadowing.value)
    with pytest.raises(AnalysisError):
        orbit_report(orbits)


def test_an_undefined_quotient_is_flagged_and_the_report_stands():
    report = orbit_report(Orbits(np.zeros((6, 2, 2)), [0, 1] * 3), lipschitz={"logits": 1.0})
    assert report.status.ok
    assert "0/0" in report.status.message
    assert "same outputs" in report.status.message
    assert report.stability[0].status.code == "undefined"
    assert math.isnan(report.scalars()["stability_logits"])


def test_stability_estimate():
    found = shadowing(sample())

    class Bound:
        value = 4.0

    assert stability_estimate(found, Bound()).value == found.value / 4
    assert stability_estimate(1.0, math.inf).value == 0.0
    assert stability_estimate(1.0, 0.0, throw=False).status.code == "undefined"
    with pytest.raises(AnalysisError, match="Lip\\(g\\) is 0"):
        stability_estimate(1.0, 0.0)
    with pytest.raises(ValueError, match=r"lipschitz=-1\.0"):
        stability_estimate(1.0, -1.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="preset='papers'"):
        orbit_report(sample(), "papers")
    with pytest.raises(ValueError, match="takes distances in 'prob', but the orbits are 'logit'"):
        orbit_report(sample(space="logit"))
