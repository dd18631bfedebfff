"""The grid of paper 3: how many networks there are, and that their weights are what their names say."""

from collections import Counter

import pytest
import torch

from fpstab.experiments.dynamics.models import (
    ACTIVATIONS,
    DEPTHS,
    GRID,
    MAPS,
    RANGES,
    LinearMap,
    Model,
    draw_parameters,
    stack_models,
    stacks,
)

SLACK = 1e-12


def test_the_grid_is_that_of_the_paper():
    assert len(GRID) == len(set(GRID)) == 828
    assert len(MAPS) == 23
    assert Counter(model.depth for model in GRID) == {1: 276, 4: 276, 8: 276}
    assert Counter(model.activation for model in GRID) == dict.fromkeys(ACTIVATIONS, 138)
    assert sum(model.bias for model in GRID) == 414


def weights_of(linear, seeds=range(6), depth=8):
    return torch.cat([draw_parameters(linear, depth, seed)[0] for seed in seeds])


@pytest.mark.parametrize("limits", RANGES)
def test_eigenvalues_and_singular_values_are_in_their_ranges(limits):
    lo, hi = limits
    real = torch.linalg.eigvals(weights_of(LinearMap("Gershgorin, real", limits)))
    assert float(real.imag.abs().max()) == 0
    assert float(real.real.min()) >= lo - SLACK
    assert float(real.real.max()) <= hi + SLACK
    disc = torch.linalg.eigvals(weights_of(LinearMap("Gershgorin, complex", limits)))
    assert float((disc - (lo + hi) / 2).abs().max()) <= (hi - lo) / 2 + SLACK
    assert bool((disc.imag != 0).any())
    sizes = torch.linalg.svdvals(weights_of(LinearMap("Spectral", limits)))
    assert float(sizes.min()) >= min(abs(lo), abs(hi)) - SLACK
    assert float(sizes.max()) <= max(abs(lo), abs(hi)) + SLACK


def test_gershgorin_weights_differ():
    for name in ("Gershgorin, real", "Gershgorin, complex"):
        W = weights_of(LinearMap(name, (0.99, 1.0)))
        assert len(torch.unique(W[:, 0, 1])) == len(W)


def test_perron_frobenius_rows_sum_to_one():
    W = weights_of(LinearMap("Perron-Frobenius", (1.0, 1.0)))
    assert bool((W >= 0).all())
    assert float((W.sum(2) - 1).abs().max()) <= 4e-16


def test_parameters_are_the_same_for_all_activations_and_with_and_without_bias():
    for linear in (MAPS[0], MAPS[22]):
        for depth in DEPTHS:
            found = [
                stack_models([Model(linear, depth, activation, bias)], [3])
                for activation in ACTIVATIONS
                for bias in (False, True)
            ]
            assert all(torch.equal(each.weights, found[0].weights) for each in found)
            assert found[0].weights.shape == (1, depth + 1, 2, 2)
            assert not found[0].biases.any()
            assert found[1].biases.all()
    assert not torch.equal(draw_parameters(MAPS[0], 4, 0)[0], draw_parameters(MAPS[0], 4, 1)[0])
    assert not torch.equal(draw_parameters(MAPS[0], 4, 0)[0], draw_parameters(MAPS[0], 8, 0)[0][:5])


def test_stacks_hold_every_model_at_its_place():
    seen = []
    for places, stack in stacks(activated=False):
        assert len(places) == len(stack) == 46
        assert stack.activations[-1] is None
        seen += places
        model = GRID[places[5]]
        weights, biases = draw_parameters(model.map, model.depth, 0)
        assert torch.equal(stack.weights[5], weights)
        assert torch.equal(stack.biases[5], biases * model.bias)
        assert isinstance(stack.activations[0], ACTIVATIONS[model.activation])
    assert sorted(seen) == list(range(828))


def test_a_stack_is_of_one_depth_and_activation():
    with pytest.raises(ValueError, match="one depth and activation"):
        stack_models([GRID[0], GRID[-1]], [0])
    with pytest.raises(ValueError, match="0 seeds"):
        stack_models([GRID[0]], [])
