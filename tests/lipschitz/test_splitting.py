import numpy as np
import pytest

from fpstab.lipschitz import head_lipschitz, lipschitz_bound
from fpstab.lipschitz.splitting import head_by_lipsdp, split_bound
from tests.lipschitz.networks import attack, gaussian


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-0.3, 0.2), (-0.5, 1.5)])
@pytest.mark.parametrize("backend", ["cvxpy:CLARABEL", "native"])
def test_the_head_of_paper_5(slopes: tuple[float, float], backend: str) -> None:
    W = np.random.default_rng(0).normal(size=(4, 12))
    expected = max(map(abs, slopes)) * head_lipschitz(W).value
    assert head_by_lipsdp(W, slopes, backend).lipsdp == pytest.approx(expected, rel=1e-6)


def test_pieces_multiply_with_the_slopes_between() -> None:
    """With slopes up to 1.5, the product of the pieces alone is below an attained norm."""
    weights = [np.eye(3), np.eye(3), np.eye(3), np.eye(3)]
    split = split_bound(weights, (-0.5, 1.5), size=2)
    truth = attack(weights, [(np.full(3, -0.5), np.full(3, 1.5))] * 3)
    assert truth == pytest.approx(1.5**3)
    assert split.factors == (1.5,)
    assert truth <= split.value <= truth * (1 + 1e-6)
    assert np.prod([part.value for part in split.parts]) < 0.7 * truth


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_sizes(size: int) -> None:
    weights = gaussian(3, 6, 7, 5, 2)
    whole = lipschitz_bound(weights, slopes=(0.0, 1.0))
    split = split_bound(weights, (0.0, 1.0), size=size)
    assert whole.value <= split.value * (1 + 1e-8)
    assert split.value <= whole.spectral_product * (1 + 1e-9)
    assert len(split.parts) == -(-4 // size)
    assert split.status.ok
    assert split.scalars()["part_0"] == split.parts[0].value
    if size >= 4:
        assert split.value == pytest.approx(whole.value, rel=1e-9)


def test_bad_size() -> None:
    with pytest.raises(ValueError, match="size=0 is out of range"):
        split_bound(gaussian(2, 3, 2), (0.0, 1.0), size=0)
