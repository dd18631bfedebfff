import numpy as np
import pytest

from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.blocks import Reduced
from fpstab.lipschitz.closed_forms import depths, eclipse_fast, strict_point
from fpstab.lipschitz.inequality import Inequality, least_rho
from fpstab.lipschitz.problem import feedforward
from fpstab.lipschitz.reduction import reduce
from tests.lipschitz.networks import SLOPES, Array, gaussian, norm


def published(weights: list[Array]) -> float:
    """ECLipsE-Fast for ReLU, Algorithm 2 of Xu and Sivaranjani (2024), with M_i and λ_i as printed."""
    M = np.eye(weights[0].shape[1])
    for W in weights[:-1]:
        K = W @ np.linalg.inv(M) @ W.T
        lam = 1.0 / np.linalg.eigvalsh(K)[-1]
        M = 2 * lam * np.eye(len(W)) - lam**2 * K
    return float(np.linalg.eigvalsh(weights[-1] @ np.linalg.inv(M) @ weights[-1].T)[-1]) ** 0.5


@pytest.mark.parametrize("sizes", [(3, 7, 2), (5, 9, 9, 4), (4, 8, 8, 8, 3)])
def test_the_published_algorithm(sizes: tuple[int, ...]) -> None:
    weights = gaussian(*sizes)
    best = min(published(weights), published([w.T for w in reversed(weights)]))
    assert lipschitz_bound(weights, slopes=(0.0, 1.0)).eclipse_fast == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("slopes", SLOPES)
def test_with_general_slopes_it_stays_below_the_product(slopes: tuple[float, float]) -> None:
    weights = gaussian(4, 9, 8, 3)
    bound = lipschitz_bound(weights, slopes=slopes)
    assert bound.value <= bound.eclipse_fast <= bound.spectral_product * (1 + 1e-5)
    product = np.prod([norm(w) for w in weights]) * max(map(abs, slopes)) ** 2
    assert bound.spectral_product == pytest.approx(product, rel=1e-10)


def test_slopes_of_single_neurons() -> None:
    rng = np.random.default_rng(0)
    problem = reduce(feedforward(gaussian(4, 9, 3), [(rng.uniform(-1, 0.4, 9), rng.uniform(0.5, 2, 9))]))
    assert isinstance(problem, Reduced)
    T = eclipse_fast(problem, np.ones(9))
    assert T is not None
    assert least_rho(Inequality.of(problem), T) is not None


@pytest.mark.parametrize("per_layer", [False, True])
def test_strict_points_are_inside(per_layer: bool) -> None:
    problem = reduce(feedforward(gaussian(4, 9, 8, 3), (-0.2, 1.1)))
    assert isinstance(problem, Reduced)
    inequality = Inequality.of(problem)
    point = strict_point(problem, inequality, per_layer=per_layer)
    assert point is not None
    assert np.linalg.eigvalsh(inequality.matrix(*point))[0] > 0.0
    if per_layer:
        assert all(np.ptp((point[1] / problem.share)[problem.layer == k]) <= 1e-12 * point[1].max() for k in range(2))


def test_depths() -> None:
    A = np.zeros((5, 5))
    A[1, 0] = A[2, 1] = A[4, 0] = 1.0
    assert depths(A).tolist() == [0, 1, 2, 0, 1]
