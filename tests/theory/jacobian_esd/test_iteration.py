import numpy as np
import pytest

from fpstab.results import AnalysisError
from fpstab.theory import jacobian_esd


@pytest.mark.parametrize(("activation", "depth"), [("linear", 2), ("relu", 3), ("hardtanh", 2), ("erf", 2)])
def test_three_digits_from_the_asymptotic_start(activation: str, depth: int) -> None:
    top = jacobian_esd.edges(activation, depth, q=0.5).upper
    lam = np.linspace(0.05, 0.8, 20) * top
    exact = jacobian_esd.density(lam, activation, depth, q=0.5).rho.numpy()
    found = jacobian_esd.density(lam, activation, depth, q=0.5, solver="paper")
    assert found.rho.numpy() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("depth", [2, 5])
def test_zero_is_a_solution_that_is_never_left(depth: int) -> None:
    found = jacobian_esd.paper_iteration([0.5, 1.0], "linear", depth, q=1.0, start="zero")
    assert found.status.ok  # nothing shows that it is wrong
    assert found.w.tolist() == [0, 0]
    assert (found.rho < 1e-4).all()


def test_a_single_layer_needs_damping() -> None:
    lam = np.linspace(0.3, 3.2, 30)
    exact = np.sqrt((4 - lam) / lam) / (2 * np.pi)
    plain = jacobian_esd.paper_iteration(lam, "linear", 1, q=1.0, throw=False)
    assert plain.status.code == "not_converged"
    assert plain.scalars()["converged"] < 0.6
    damped = jacobian_esd.paper_iteration(lam, "linear", 1, q=1.0, damping=0.5)
    assert damped.rho.numpy() == pytest.approx(exact, rel=1e-3)
    with pytest.raises(AnalysisError, match=r"a damping of 0\.5"):
        jacobian_esd.paper_iteration(lam, "linear", 1, q=1.0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="not positive and finite"):
        jacobian_esd.paper_iteration([0.0], "linear", 2, q=1.0)
    with pytest.raises(ValueError, match="start = 'nowhere'"):
        jacobian_esd.paper_iteration([0.5], "linear", 2, q=1.0, start="nowhere")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="damping = 1"):
        jacobian_esd.paper_iteration([0.5], "linear", 2, q=1.0, damping=1.0)
