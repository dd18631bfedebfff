import copy
import math

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from fpstab.ensembles import Antisymmetric, Orthogonal, Symmetric, init, orthogonality_defect, symmetry_defect

N = 12


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def member(kind: str, sqrt_v: float = 0.7) -> Tensor:
    fill = {"symmetric": init.goe_, "antisymmetric": init.antisymmetric_, "orthogonal": init.orthogonal_}[kind]
    return fill(torch.empty(N, N, dtype=torch.float64), sqrt_v, generator=seeded())


def parametrization(kind: str) -> nn.Module:
    if kind == "orthogonal":
        return Orthogonal(N, N, dtype=torch.float64)
    return {"symmetric": Symmetric, "antisymmetric": Antisymmetric}[kind]()


def layer_of(kind: str, weight: Tensor) -> nn.Linear:
    layer = nn.Linear(N, N, bias=False, dtype=torch.float64)
    register_parametrization(layer, "weight", parametrization(kind))
    layer.weight = weight  # type: ignore[assignment]
    return layer


def outside(kind: str, w: Tensor) -> float:
    """How far a weight is from its family."""
    if kind == "orthogonal":
        return orthogonality_defect(w)
    return symmetry_defect(w) if kind == "symmetric" else 1 - symmetry_defect(w)


def train(layer: nn.Linear, steps: int = 60) -> None:
    data = torch.randn(32, N, generator=seeded(1), dtype=torch.float64)
    target = torch.randn(32, N, generator=seeded(2), dtype=torch.float64)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(data) - target).square().mean().backward()
        optimizer.step()


KINDS = ["symmetric", "antisymmetric", "orthogonal"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_keeps_the_family_and_would_leave_it(kind: str) -> None:
    weight = member(kind)
    layer = layer_of(kind, weight)
    train(layer)
    assert float((layer.weight.detach() - weight).norm()) > 0.3 * float(weight.norm())  # it did train
    assert outside(kind, layer.weight) < 1e-12
    free = nn.Linear(N, N, bias=False, dtype=torch.float64)
    free.weight.data.copy_(weight)
    train(free)
    assert outside(kind, free.weight) > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_assigned_is_read_back(kind: str) -> None:
    weight = member(kind)
    layer = layer_of(kind, weight)
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=0, atol=1e-14)
    train(layer, 5)
    layer.weight = 2 * weight  # type: ignore[assignment]  # again, after training
    torch.testing.assert_close(layer.weight.detach(), 2 * weight, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_any_matrix_is_replaced_by_the_nearest_member(kind: str) -> None:
    w = torch.randn(N, N, generator=seeded(), dtype=torch.float64)
    nearest = layer_of(kind, w).weight.detach()
    best = float((nearest - w).norm())
    for seed in range(20):  # no other member is nearer
        other = layer_of(kind, nearest)
        with torch.no_grad():
            other.parametrizations.weight.original.add_(
                0.05 * torch.randn(N, N, generator=seeded(seed), dtype=torch.float64)
            )
        assert float((other.weight.detach() - w).norm()) > best


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_and_copies(kind: str) -> None:
    layer = layer_of(kind, member(kind))
    train(layer, 5)
    other = layer_of(kind, member(kind, 1.3))
    assert not torch.allclose(other.weight, layer.weight)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    transform = layer_of(kind, member(kind)).parametrizations.weight[0]
    x = (0.3 * torch.randn(N, N, generator=seeded(3), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(transform, x)


@pytest.mark.parametrize(("kind", "sign"), [("symmetric", 1), ("antisymmetric", -1)])
def test_a_step_of_gradient_descent_is_the_projected_step(kind: str, sign: int) -> None:
    weight = member(kind)
    layer = layer_of(kind, weight)
    g = torch.randn(N, N, generator=seeded(4), dtype=torch.float64)
    (layer.weight * g).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    torch.testing.assert_close(layer.weight.detach(), weight - 0.1 * (g + sign * g.T) / 2)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_rectangles(shape: tuple[int, int]) -> None:
    layer = nn.Linear(shape[1], shape[0])
    register_parametrization(layer, "weight", Orthogonal(*shape))
    layer.weight = init.orthogonal_(torch.empty(shape), 0.4, generator=seeded())  # type: ignore[assignment]
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.randn(7, 7, generator=seeded(1)))
    assert layer.weight.shape == shape
    assert orthogonality_defect(layer.weight) < 1e-6
    assert float(torch.linalg.svdvals(layer.weight.detach())[0]) == pytest.approx(0.4, rel=1e-5)


def test_the_scale_trains_only_if_asked() -> None:
    for train_scale in (False, True):
        layer = nn.Linear(N, N, bias=False, dtype=torch.float64)
        register_parametrization(layer, "weight", Orthogonal(N, N, train_scale=train_scale, dtype=torch.float64))
        layer.weight = member("orthogonal", 0.7)  # type: ignore[assignment]
        train(layer)
        assert (abs(float(torch.linalg.svdvals(layer.weight.detach())[0]) - 0.7) > 0.01) == train_scale
        assert orthogonality_defect(layer.weight) < 1e-12


def test_defects() -> None:
    w = torch.randn(300, 300, generator=seeded())
    assert symmetry_defect(w) == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert orthogonality_defect(w) == pytest.approx(1, abs=0.02)
    assert orthogonality_defect(init.goe_(w, generator=seeded())) == pytest.approx(1, abs=0.02)
    for tau in (-0.5, 0.4):
        assert symmetry_defect(init.elliptic_(w, tau, generator=seeded())) == pytest.approx(
            math.sqrt((1 - tau) / 2), abs=0.01
        )
    assert symmetry_defect(7 * w) == pytest.approx(symmetry_defect(w), rel=1e-6)
    assert symmetry_defect(torch.zeros(3, 3)) == orthogonality_defect(torch.zeros(3, 5)) == 0.0
    rectangle = torch.randn(4, 9, generator=seeded(), dtype=torch.float64)
    squares = torch.linalg.svdvals(rectangle).square()
    exact = float(squares.std(correction=0) / squares.mean())
    assert orthogonality_defect(rectangle) == pytest.approx(exact, rel=1e-12)
    assert orthogonality_defect(rectangle.T) == pytest.approx(exact, rel=1e-12)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"Symmetric.*\(3, 4\)"):
        Symmetric()(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"Antisymmetric.*\(3, 4\)"):
        register_parametrization(nn.Linear(4, 3), "weight", Antisymmetric())
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
        Orthogonal(4, 3).right_inverse(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="0x3"):
        Orthogonal(0, 3)
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        symmetry_defect(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 3\)"):
        symmetry_defect(torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        orthogonality_defect(torch.zeros(3))
