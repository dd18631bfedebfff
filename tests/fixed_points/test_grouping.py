"""Groups that do not depend on order."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.fixed_points.grouping import canonical_order, group, tolerant_order
from tests import cases


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_clusters_are_found_again(seed, k, n):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * n).reshape(-1, n)
    centres = centres[torch.randperm(len(centres), generator=generator)[: min(k, len(centres))]]
    which = torch.randint(len(centres), (100,), generator=generator)
    error = 10 ** (-3 - 6 * torch.rand(100, generator=generator, dtype=torch.float64))
    noise = torch.randn(100, n, generator=generator, dtype=torch.float64)
    x = centres[which] + 0.4 * error[:, None] * noise / noise.norm(dim=1, keepdim=True)
    leaders, label = group(x, error)
    assert len(leaders) == len(which.unique())
    assert torch.equal(label[leaders], torch.arange(len(leaders)))
    same = which[:, None] == which[None]
    assert torch.equal(label[:, None] == label[None], same)
    assert all(error[leader] == error[label == i].min() for i, leader in enumerate(leaders))


def test_a_fixed_threshold():
    x = torch.tensor([[0.0], [5e-4], [2e-3]], dtype=torch.float64)
    assert group(x, torch.full((3,), 1e-9), threshold=1e-3)[1].tolist() == [0, 0, 1]
    assert group(x, torch.full((3,), 1e-9))[1].tolist() == [0, 1, 2]


def test_canonical_order():
    x = cases.uniform(200, 3)
    x[7] = x[9]
    shuffled = x[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(x[canonical_order(x)], shuffled[canonical_order(shuffled)])
    zeros = torch.tensor([[-0.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    assert zeros[canonical_order(zeros), 1].tolist() == zeros.flip(0)[canonical_order(zeros.flip(0)), 1].tolist()


def test_tolerant_order_ignores_rounding():
    points = cases.doubled_tanh(3).points
    first = torch.zeros(len(points), dtype=torch.int64)
    expected = points[tolerant_order(points, first)]
    assert torch.equal(expected, points)  # they come in lexicographic order
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        order = torch.randperm(len(points), generator=generator)
        noisy = points[order] + 1e-13 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
        assert torch.allclose(noisy[tolerant_order(noisy, first)], expected, rtol=0, atol=1e-12)


def test_tolerant_order_sorts_by_the_key_first():
    points = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    assert tolerant_order(points, torch.tensor([1, 0, 1])).tolist() == [1, 0, 2]
    assert tolerant_order(points[:0], torch.tensor([], dtype=torch.int64)).tolist() == []
