import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fpstab.esd import LayerESD, fit_marchenko_pastur, fit_power_law, tail_verdict, weight_spectrum
from fpstab.esd.layers import analyse_weight
from fpstab.esd.metrics import rand_distance, spectrum_metrics
from fpstab.esd.verdicts import LABELS, shuffled
from fpstab.esd.weights import Weight


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cauchy(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).cauchy_(generator=torch.Generator().manual_seed(seed))


def weight_of(tensor: Tensor, *, groups: int = 1, is_conv: bool = False) -> Weight:
    return Weight("net.layer", "Linear", groups, is_conv, lambda: tensor)


def raises(error: Exception) -> Callable[[], Tensor]:
    def read() -> Tensor:
        raise error

    return read


@pytest.mark.parametrize("tensor", [gaussian(60, 90), cauchy(80, 80), 3 * torch.eye(40), gaussian(5, 60)])
def test_a_layer_gathers_its_parts(tensor: Tensor) -> None:
    layer = analyse_weight(weight_of(tensor))
    spectrum, verdict = weight_spectrum(tensor), tail_verdict(tensor)
    assert (layer.name, layer.kind, layer.shape) == ("net.layer", "Linear", tuple(tensor.shape))
    assert layer.spectrum is not None
    assert torch.equal(layer.spectrum.eigenvalues, spectrum.eigenvalues)
    assert layer.verdict is not None
    assert str(layer.verdict) == str(verdict)
    assert layer.fit is not None
    assert layer.fit is layer.verdict.evidence.fit
    assert layer.bulk is layer.verdict.evidence.bulk
    assert layer.n == min(tensor.shape)
    for name in ("alpha", "sigma", "xmin", "ks_distance", "n_tail"):
        assert getattr(layer, name) == getattr(layer.fit, name)
    assert layer.spikes == (layer.bulk.n_spikes if layer.bulk else 0)
    assert layer.largest_singular_value == pytest.approx(float(torch.linalg.matrix_norm(tensor, 2)), rel=1e-12)
    assert layer.metrics == spectrum_metrics(spectrum, layer.fit, layer.bulk)
    assert "rand_distance" not in layer.metrics


def test_the_values() -> None:
    layer = analyse_weight(weight_of(cauchy(80, 80)))
    values = torch.linalg.svdvals(cauchy(80, 80)).square().flip(0)
    fit = fit_power_law(values)
    assert layer.alpha == pytest.approx(fit.alpha, rel=1e-9)
    assert layer.n_tail == fit.n_tail
    assert layer.spikes == fit_marchenko_pastur(values, (80, 80)).n_spikes
    assert layer.scalars() == {
        "alpha": layer.alpha,
        "ks_distance": layer.ks_distance,
        "n_tail": layer.n_tail,
        "n_spikes": layer.spikes,
        "largest_singular_value": layer.largest_singular_value,
        "verdict": 3.0,
    }
    assert {type(value) for value in layer.scalars().values()} == {float}


@pytest.mark.parametrize(
    ("tensor", "options", "is_conv", "groups"),
    [
        (cauchy(60, 40, 3, 3), {"conv": "slices"}, True, 1),
        (cauchy(60, 40, 3, 3), {}, True, 1),
        (cauchy(60, 40, 3), {}, True, 2),
        (cauchy(60, 40, 3), {"conv": "slices"}, False, 1),
    ],
)
def test_kernels(tensor: Tensor, options: dict[str, Any], is_conv: bool, groups: int) -> None:
    layer = analyse_weight(weight_of(tensor, groups=groups, is_conv=is_conv), **options)
    conv = options.get("conv", "flatten") if is_conv else "flatten"
    spectrum = weight_spectrum(tensor, conv=conv, groups=groups)
    assert layer.spectrum is not None
    assert torch.equal(layer.spectrum.eigenvalues, spectrum.eigenvalues)
    assert layer.spectrum.n_matrices == spectrum.n_matrices
    assert str(layer.verdict) == str(tail_verdict(tensor, conv=conv, groups=groups)) == "heavy (entries)"


def test_a_matrix_beside_a_grouped_kernel_has_no_groups() -> None:
    layer = analyse_weight(weight_of(gaussian(61, 40), groups=2, is_conv=True))
    assert layer.spectrum is not None
    assert layer.spectrum.n_matrices == 1


def test_small_slices_have_an_exponent_and_no_verdict() -> None:
    layer = analyse_weight(weight_of(gaussian(16, 40, 3, 3), is_conv=True), "slices")
    assert layer.n == 16 * 9
    assert layer.status.ok
    assert layer.alpha is not None
    assert layer.verdict is not None
    assert layer.verdict.label == "too_few"
    assert (layer.bulk, layer.spikes) == (None, 0)
    assert layer.metrics["num_spikes"] is None
    assert layer.metrics["alpha"] == layer.alpha


def test_randomize() -> None:
    tensor = gaussian(50, 60) * torch.linspace(1, 9, 60)
    layer = analyse_weight(weight_of(tensor), randomize=True)
    assert layer.spectrum is not None
    expected = rand_distance(layer.spectrum.eigenvalues, weight_spectrum(shuffled(tensor)).eigenvalues)
    assert layer.metrics["rand_distance"] == expected
    assert expected is not None
    same = analyse_weight(weight_of(gaussian(50, 60)), randomize=True).metrics["rand_distance"]
    assert same is not None
    assert expected > 3 * same
    seeds = [
        analyse_weight(weight_of(tensor), randomize=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]
    assert seeds[0].metrics["rand_distance"] != seeds[1].metrics["rand_distance"]
    # a spectrum without a partner of its length has none
    low = gaussian(40, 10) @ gaussian(10, 40, seed=1)
    assert analyse_weight(weight_of(low), randomize=True).metrics["rand_distance"] is None


BAD: dict[str, tuple[Tensor, str | None, bool]] = {
    "not_finite": (torch.full((30, 40), math.nan), None, True),
    "all_zero": (torch.zeros(30, 40), None, False),
    "empty": (torch.zeros(0, 40), None, False),
    "meta": (torch.zeros(30, 40, device="meta"), None, True),
    "quantized": (torch.ones(30, 40, dtype=torch.int8), None, True),
    "out_of_range": (gaussian(30, 40) * 1e-200, None, True),
    "too_few": (gaussian(100, 2), "too_few", False),
    "constant": (torch.eye(30), "not_heavy", False),
}


@pytest.mark.parametrize("code", BAD)
def test_a_layer_without_an_exponent(code: str) -> None:
    tensor, label, failed = BAD[code]
    layer = analyse_weight(weight_of(tensor), randomize=True)
    assert layer.status.code == code
    assert layer.status.message.startswith(f"net.layer {list(tensor.shape)}: ")
    assert len(layer.status.message) > len(f"net.layer {list(tensor.shape)}: ") + 20  # a sentence
    assert layer.failed == failed
    assert layer.alpha is None
    assert (layer.verdict.label if layer.verdict else None) == label
    assert bool(layer.metrics) == (label is not None)
    scalars = layer.scalars()
    assert math.isnan(scalars["alpha"])
    assert math.isnan(scalars["verdict"]) if label is None else scalars["verdict"] == LABELS.index(label)  # type: ignore[arg-type]
    assert (scalars["n_tail"], scalars["n_spikes"]) == (0, 0)


@pytest.mark.parametrize("error", [ZeroDivisionError("by nothing"), RuntimeError("of the user"), KeyError("key")])
def test_a_weight_that_cannot_be_read(error: Exception) -> None:
    layer = analyse_weight(Weight("enc", "Odd", 1, False, raises(error)))
    assert layer.failed
    assert layer.status.code == "error"
    assert layer.status.message == f"enc: {type(error).__name__}: {error}"
    assert (layer.shape, layer.spectrum, layer.fit, layer.verdict, layer.metrics) == ((), None, None, None, {})
    assert (layer.n, layer.n_tail, layer.spikes, layer.largest_singular_value) == (0, 0, 0, None)


def test_what_must_not_be_swallowed() -> None:
    for error in (KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)):
            analyse_weight(Weight("enc", "Odd", 1, False, raises(error)))  # type: ignore[arg-type]


def test_lazy_weights() -> None:
    layer = analyse_weight(weight_of(nn.LazyLinear(3).weight))
    assert (layer.status.code, layer.failed, layer.shape) == ("uninitialized", True, ())
    assert "forward pass" in layer.status.message


def test_results_are_frozen_values() -> None:
    layer = analyse_weight(weight_of(gaussian(30, 40).requires_grad_()))
    with pytest.raises(AttributeError):
        layer.name = "other"  # type: ignore[misc]
    assert isinstance(replace(layer, name="other"), LayerESD)
    assert layer.spectrum is not None
    assert not layer.spectrum.eigenvalues.requires_grad
    assert np.isfinite([value for value in layer.metrics.values() if value is not None]).all()
    assert layer.plot().get_title().startswith("net.layer  30×40")
