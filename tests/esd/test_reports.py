import copy
import csv
import io
import json
import logging
import math
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from fpstab.esd import ESDReport, LayerESD, esd_report, fit_power_law


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cauchy(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).cauchy_(generator=torch.Generator().manual_seed(seed)).to(dtype)


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point())
    return layer


def mlp() -> nn.Sequential:
    """Heavy, light, and too small."""
    return nn.Sequential(
        linear(cauchy(60, 80, dtype=torch.float32)),
        nn.ReLU(),
        linear(gaussian(50, 60, dtype=torch.float32)),
        linear(gaussian(10, 50, dtype=torch.float32)),
    )


def only(report: ESDReport) -> LayerESD:
    (layer,) = report.layers
    return layer


# -- the numbers ---------------------------------------------------------------------------------------------


def reference(weight: Tensor) -> dict[str, float]:
    """By SVD in double precision and an exhaustive search."""
    values = np.sort(np.linalg.svd(weight.double().numpy(), compute_uv=False)) ** 2
    best: tuple[float, ...] = (math.inf,)
    for k in range(values.size - 2):
        tail = values[k:]
        alpha = 1 + tail.size / np.log(tail / tail[0]).sum()
        empirical = np.arange(tail.size) / tail.size
        distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - empirical).max()
        best = min(best, (distance, alpha, tail.size, tail[0]))
    return dict(zip(("ks_distance", "alpha", "n_tail", "xmin"), best, strict=True)) | {"norm": values[-1] ** 0.5}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(100, 100), (60, 200), (200, 60)])
@pytest.mark.parametrize("entries", [gaussian, cauchy])
def test_a_layer_has_the_numbers_of_its_matrix(
    entries: Callable[..., Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for seed in range(3):
        weight = entries(*shape, seed=seed, dtype=dtype)
        layer, expected = only(esd_report(linear(weight))), reference(weight)
        assert layer.status.ok
        assert layer.alpha == pytest.approx(expected["alpha"], rel=1e-6, abs=0)
        assert layer.xmin == pytest.approx(expected["xmin"], rel=1e-6, abs=0)
        assert layer.ks_distance == pytest.approx(expected["ks_distance"], rel=1e-6, abs=0)
        assert layer.n_tail == expected["n_tail"]
        assert layer.sigma == pytest.approx((expected["alpha"] - 1) / math.sqrt(expected["n_tail"]), rel=1e-6, abs=0)
        assert layer.largest_singular_value == pytest.approx(expected["norm"], rel=1e-12, abs=0)
        assert layer.n == min(shape)
        assert layer.shape == shape
        assert not layer.failed


def scaled(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight * scale


def permuted(weight: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    rows, columns = (torch.randperm(size, generator=generator) for size in weight.shape)
    return weight[rows][:, columns]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(80, 80), (60, 120)])
@pytest.mark.parametrize("entries", [gaussian, cauchy])
@pytest.mark.parametrize(
    "change", [scaled(1e6), scaled(1e-6), scaled(1e-30), lambda w: w.T, lambda w: w.T.contiguous(), permuted]
)
def test_what_the_exponent_does_not_depend_on(
    change: Callable[[Tensor], Tensor], entries: Callable[..., Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for seed in range(3):
        weight = entries(*shape, seed=seed, dtype=dtype)
        layer, other = only(esd_report(linear(weight))), only(esd_report(linear(change(weight))))
        assert other.alpha == pytest.approx(layer.alpha, rel=1e-6, abs=0)
        assert other.ks_distance == pytest.approx(layer.ks_distance, rel=1e-6, abs=0)
        assert (other.n, other.n_tail) == (layer.n, layer.n_tail)


@pytest.mark.parametrize("scale", [1e150, 1e-140])
def test_extreme_scales(scale: float) -> None:
    weight = gaussian(60, 80)
    layer, other = only(esd_report(linear(weight))), only(esd_report(linear(weight * scale)))
    assert other.alpha == pytest.approx(layer.alpha, rel=1e-6, abs=0)
    assert (other.n, other.n_tail) == (layer.n, layer.n_tail)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(20, 45), st.integers(20, 45)),
    exponent=st.integers(-400, 400),
    heavy=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_power_of_two_leaves_the_report_unchanged(
    shape: tuple[int, int], exponent: int, heavy: bool, seed: int
) -> None:
    weight = (cauchy if heavy else gaussian)(*shape, seed=seed)
    layer, other = only(esd_report(linear(weight))), only(esd_report(linear(weight * 2.0**exponent)))
    assert (other.alpha, other.ks_distance, other.n_tail) == (layer.alpha, layer.ks_distance, layer.n_tail)


def test_degenerate_eigenvalues_do_not_depend_on_the_order_either() -> None:
    # the singular values of an antisymmetric matrix come in pairs, equal up to rounding
    weight = gaussian(60, 60)
    weight = weight - weight.T
    layer, other = only(esd_report(linear(weight))), only(esd_report(linear(permuted(weight))))
    assert other.alpha == pytest.approx(layer.alpha, rel=1e-6, abs=0)
    assert other.n_tail == layer.n_tail


# -- no trace ------------------------------------------------------------------------------------------------


def snapshot(net: nn.Module) -> dict[str, Any]:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = {name: module.training for name, module in net.named_modules()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    numpy = np.random.get_state()[1]  # noqa: NPY002
    rng = {"torch": torch.get_rng_state(), "numpy": numpy, "python": random.getstate()}
    return {"state": state, "modes": modes, "grads": grads, "flags": flags, "rng": rng, "grad": torch.is_grad_enabled()}


def same(one: object, other: object) -> bool:
    match one, other:
        case Tensor(), Tensor():
            return torch.equal(one, other)
        case np.ndarray(), np.ndarray():
            return bool((one == other).all())
        case dict(), dict():
            return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        case _:
            return one == other


class Noisy(nn.Module):
    """Draws from every random state when it is read."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002


def test_reading_leaves_no_trace() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(30, 40)),
        nn.BatchNorm1d(40),
        nn.Dropout(0.5),
        parametrize.register_parametrization(nn.Linear(40, 30), "weight", Noisy()),
        nn.utils.spectral_norm(nn.Linear(30, 30)),
    )
    net[1].eval()
    net[4].weight_orig.requires_grad_(False)
    net(torch.randn(8, 30)).sum().backward()
    before = snapshot(net)
    report = esd_report(net)
    assert same(snapshot(net), before)
    assert [layer.n for layer in report.layers] == [30, 30, 30]
    assert not any(layer.spectrum.eigenvalues.requires_grad for layer in report.layers if layer.spectrum)
    net[0].weight  # noqa: B018
    assert not same(snapshot(net), before)  # that a read in training does change it


def logs() -> dict[str, tuple[object, ...]]:
    loggers = {"root": logging.root} | {
        name: logger for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    return {
        name: (logger.level, logger.disabled, logger.propagate, tuple(logger.handlers), tuple(logger.filters))
        for name, logger in loggers.items()
    }


def attributes(net: nn.Module) -> dict[str, list[tuple[str, int]]]:
    return {name: [(key, id(value)) for key, value in vars(module).items()] for name, module in net.named_modules()}


def test_the_process_is_as_before(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    net = nn.Sequential(*mlp(), linear(torch.full((30, 30), math.nan)), linear(torch.eye(30)), nn.LazyLinear(3))
    esd_report(net).plot()  # imports what it needs
    rng, generators = (
        snapshot(nn.ReLU())["rng"],
        (torch.initial_seed(), torch.get_num_threads(), torch.get_default_dtype()),
    )
    before = (logs(), list(warnings.filters), attributes(net), dict(mpl.rcParams), plt.get_fignums(), np.geterr())
    streams = (sys.stdout, sys.stderr, sys.excepthook, warnings.showwarning)
    with caplog.at_level(0):
        levels = logs()
        report = esd_report(net, randomize=True)
        for result in (report.scalars, report.summary, report.table, report.to_csv, report.to_json, report.plot):
            result()
        assert logs() == levels
    assert (
        logs(),
        list(warnings.filters),
        attributes(net),
        dict(mpl.rcParams),
        plt.get_fignums(),
        np.geterr(),
    ) == before
    assert streams == (sys.stdout, sys.stderr, sys.excepthook, warnings.showwarning)
    assert same(snapshot(nn.ReLU())["rng"], rng)
    assert generators == (torch.initial_seed(), torch.get_num_threads(), torch.get_default_dtype())
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_training_goes_on_as_without_it() -> None:
    def train(measured: bool) -> Tensor:
        torch.manual_seed(0)
        net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(20, 20)), nn.Dropout(0.5), nn.Linear(20, 1))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(5):
            loss = net(torch.randn(8, 20)).square().mean()
            if measured:
                esd_report(net)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return torch.cat([value.flatten() for value in net.state_dict().values()])

    assert torch.equal(train(measured=True), train(measured=False))


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu"),
        lambda: torch.device("meta"),
        lambda: np.errstate(all="raise"),
    ],
)
def test_under_other_modes(context: Callable[[], Any]) -> None:
    net = mlp()
    expected = contents(esd_report(net, randomize=True))
    with context():
        assert contents(esd_report(net, randomize=True)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_under_another_default_dtype(dtype: torch.dtype) -> None:
    net = mlp()
    expected, default = contents(esd_report(net)), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert contents(esd_report(net)) == expected
    finally:
        torch.set_default_dtype(default)


# -- what has no exponent ------------------------------------------------------------------------------------

BAD: dict[str, tuple[Tensor, str, str]] = {
    "nan": (torch.full((30, 40), math.nan), "not_finite", "1200 NaN"),
    "inf": (torch.eye(30).log(), "not_finite", "870 infinite"),
    "zero": (torch.zeros(30, 40), "all_zero", "1200 weights are zero"),
    "identity": (torch.eye(30), "constant", "30 positive eigenvalues"),
    "identity_bf16": (torch.eye(30, dtype=torch.bfloat16), "constant", "bfloat16"),
    "identity_f64": (torch.eye(30, 50, dtype=torch.float64), "constant", "float64"),
    "rank_ten": (gaussian(30, 10) @ gaussian(10, 40, seed=1), "too_few", "10 eigenvalues"),
    "two_values": (torch.diag(torch.tensor([1.0] * 20 + [2.0] * 20)), "constant", "fewer than three distinct"),
    "row": (gaussian(1, 40), "too_few", "1 eigenvalue"),
    "papers_input": (gaussian(100, 2), "too_few", "2 eigenvalues"),
    "ten": (gaussian(10, 40), "too_few", "10 eigenvalues"),
    "nineteen": (gaussian(19, 40), "too_few", "19 eigenvalues"),
    "empty": (torch.zeros(0, 40), "empty", "(0, 40)"),
    "tiny": (gaussian(30, 40) * 1e-200, "out_of_range", "e-200"),
    "meta": (torch.zeros(30, 40, device="meta"), "meta", "meta device"),
    "int8": (torch.ones(30, 40, dtype=torch.int8), "quantized", "int8"),
}
FAILED = {"not_finite", "out_of_range", "meta", "quantized"}


@pytest.mark.parametrize("case", BAD)
def test_a_layer_without_an_exponent_says_why(case: str) -> None:
    weight, code, says = BAD[case]
    net = nn.ModuleDict({"bad": linear(weight), "good": linear(gaussian(30, 40))})
    report = esd_report(net)
    layer = report["bad"]
    assert layer.status.code == code
    assert layer.status.message.startswith(f"bad {list(weight.shape)}: ")
    assert says in layer.status.message
    assert (layer.alpha, layer.sigma, layer.xmin, layer.ks_distance, layer.n_tail) == (None, None, None, None, 0)
    assert layer.failed == (code in FAILED)
    assert report["good"].status.ok
    assert report["good"].alpha is not None
    assert report.status.ok
    scalars = report.scalars()
    assert math.isnan(scalars["bad/alpha"])
    assert math.isnan(scalars["bad/ks_distance"])
    assert scalars["bad/n_tail"] == 0
    assert scalars["n_failed"] == (code in FAILED)
    assert scalars["alpha_median"] == scalars["alpha_min"] == report["good"].alpha


def test_orthogonal_initialisation() -> None:
    torch.manual_seed(0)
    for layer in (nn.Linear(60, 60), nn.Linear(200, 50), nn.Conv2d(16, 32, 3)):
        nn.init.orthogonal_(layer.weight)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            entry = only(esd_report(copy.deepcopy(layer).to(dtype)))
            assert (entry.status.code, entry.alpha) == ("constant", None)
            assert entry.largest_singular_value == pytest.approx(1, abs=0.01)


def test_a_rank_deficient_weight_still_has_an_exponent() -> None:
    weight = gaussian(50, 30) @ gaussian(30, 60, seed=1)
    layer = only(esd_report(linear(weight)))
    positive = np.linalg.svd(weight.numpy(), compute_uv=False)[:30] ** 2
    assert layer.status.ok
    assert layer.n == 30
    assert layer.spectrum is not None
    assert layer.spectrum.n_zero == 20
    assert layer.alpha == pytest.approx(fit_power_law(positive).alpha, rel=1e-6, abs=0)


class Explodes(nn.Module):
    armed = False

    def forward(self, weight: Tensor) -> Tensor:
        if self.armed:
            raise ZeroDivisionError("the parametrisation says no")
        return weight


def test_a_parametrisation_that_raises_costs_only_its_layer() -> None:
    net = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    parametrize.register_parametrization(net[0], "weight", Explodes())
    net[0].parametrizations.weight[0].armed = True
    report = esd_report(net)
    first, second = report.layers
    assert (first.status.code, first.spectrum, first.alpha, first.failed) == ("error", None, None, True)
    assert first.status.message == "0: ZeroDivisionError: the parametrisation says no"
    assert second.status.ok
    assert report.scalars()["n_failed"] == 1


def test_a_network_without_weights() -> None:
    for net in (nn.ReLU(), nn.Sequential(), nn.BatchNorm1d(3), nn.Sequential(nn.LayerNorm((3, 4)))):
        report = esd_report(net)
        assert report.layers == ()
        assert report.status.code == "no_weights"
        assert "no weight" in report.status.message
        assert not report.status.ok
        scalars = report.scalars()
        assert scalars.keys() == {"alpha_median", "alpha_min", "n_heavy", "n_spikes", "n_failed"}
        assert math.isnan(scalars["alpha_median"])
        assert math.isnan(scalars["alpha_min"])
        assert scalars["n_heavy"] == scalars["n_spikes"] == scalars["n_failed"] == 0
        assert report.table() == []
        assert all(math.isnan(value) for value in report.summary().values())
        assert len(report.to_dataframe()) == 0
        assert list(csv.DictReader(io.StringIO(report.to_csv()))) == []
        assert json.loads(report.to_json())["status"]["code"] == "no_weights"


# -- which layers --------------------------------------------------------------------------------------------


def network() -> nn.ModuleDict:
    return nn.ModuleDict({"enc": nn.Sequential(nn.Linear(30, 25), nn.Linear(25, 30)), "head": nn.Linear(30, 20)})


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (None, None, ["enc.0", "enc.1", "head"]),
        ("enc", None, ["enc.0", "enc.1"]),
        (["enc.1", "head"], None, ["enc.1", "head"]),
        (("*.1",), None, ["enc.1"]),
        (None, "enc.*", ["head"]),
        ("enc", ["*.0"], ["enc.1"]),
        ([], [], ["enc.0", "enc.1", "head"]),
    ],
)
def test_include_and_exclude(include: Any, exclude: Any, names: list[str]) -> None:
    report = esd_report(network(), include=include, exclude=exclude)
    assert [layer.name for layer in report.layers] == names
    assert (report.status.code, report.status.message) == ("ok", "")


@pytest.mark.parametrize(
    ("include", "exclude", "code", "says"),
    [
        ("decoder", None, "no_match", "No weight matches 'decoder'"),
        (["enc", "decoder"], None, "ok", "No weight matches 'decoder'"),
        (None, ["tail", "t?p"], "ok", "No weight matches 'tail', 't?p'"),
        (None, "*", "no_match", "include and exclude leave no weight"),
        ("head", "head", "no_match", "include and exclude leave no weight"),
    ],
)
def test_patterns_that_match_nothing(include: Any, exclude: Any, code: str, says: str) -> None:
    report = esd_report(network(), include=include, exclude=exclude)
    assert report.status.code == code
    assert report.status.message == f"{says}; the weights are: enc.0, enc.1, head."
    assert bool(report.layers) == (code == "ok")


def test_excluded_layers_are_not_read() -> None:
    net = network()
    parametrize.register_parametrization(net["head"], "weight", Explodes())
    calls: list[int] = []
    net["head"].parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
    esd_report(net, exclude="head")
    assert calls == []
    esd_report(net)
    assert calls == [1]  # and otherwise once


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="got Tensor"):
        esd_report(torch.ones(3, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got type"):
        esd_report(nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="conv='fft' is unknown"):
        esd_report(nn.Linear(3, 3), conv="fft")  # type: ignore[arg-type]
    for bad in (5, [5], ["a", None], b"enc"):
        with pytest.raises(TypeError, match=r"include=.* is not understood") as error:
            esd_report(nn.Linear(3, 3), include=bad)  # type: ignore[arg-type]
        assert repr(bad) in str(error.value)
        with pytest.raises(TypeError, match="exclude="):
            esd_report(nn.Linear(3, 3), exclude=bad)  # type: ignore[arg-type]


def test_a_generator_of_patterns_is_read_once() -> None:
    report = esd_report(network(), include=(name for name in ("head", "enc.0")))  # type: ignore[arg-type]
    assert [layer.name for layer in report.layers] == ["enc.0", "head"]


# -- what is logged and printed ------------------------------------------------------------------------------


def test_scalars() -> None:
    report = esd_report(mlp())
    scalars = report.scalars()
    assert {type(value) for value in scalars.values()} == {float}
    quantities = ("alpha", "ks_distance", "n_tail", "n_spikes", "largest_singular_value", "verdict")
    assert list(scalars) == [
        "alpha_median",
        "alpha_min",
        "n_heavy",
        "n_spikes",
        "n_failed",
        *(f"{name}/{quantity}" for name in ("0", "2", "3") for quantity in quantities),
    ]
    alphas = [layer.alpha for layer in report.layers]
    assert alphas[2] is None
    heavy, light = alphas[:2]
    assert heavy is not None
    assert light is not None
    assert heavy < light
    assert scalars["alpha_min"] == heavy
    assert [scalars[f"{name}/verdict"] for name in ("0", "2", "3")] == [3, 1, 0]  # heavy, light, too_few
    assert scalars["n_heavy"] == 1
    assert scalars["n_spikes"] == sum(layer.spikes for layer in report.layers) > 0
    assert scalars["alpha_median"] == pytest.approx((heavy + light) / 2, rel=1e-15)
    for layer in report.layers:
        own = layer.scalars()
        assert tuple(own) == quantities
        assert own["n_tail"] == layer.n_tail
        assert own["n_spikes"] == layer.spikes
        assert own["largest_singular_value"] == layer.largest_singular_value
        assert layer.verdict is not None
        assert own["verdict"] == layer.verdict.code
        assert math.isnan(own["alpha"]) if layer.alpha is None else own["alpha"] == layer.alpha
        assert all(same(scalars[f"{layer.name}/{key}"], value) or math.isnan(value) for key, value in own.items())


def test_table() -> None:
    net = mlp()
    report = esd_report(net)
    rows = report.table()
    assert [(row["layer"], row["kind"], row["shape"], row["n"]) for row in rows] == [
        ("0", "Linear", "60×80", 60),
        ("2", "Linear", "50×60", 50),
        ("3", "Linear", "10×50", 10),
    ]
    assert [row["status"] for row in rows] == ["ok", "ok", "too_few"]
    assert [row["verdict"] for row in rows] == ["heavy", "light", "too_few"]
    assert [row["cause"] for row in rows] == ["entries", None, None]
    for row, layer in zip(rows, report.layers, strict=True):
        assert row["D"] == layer.ks_distance
        assert row["num_pl_spikes"] == (layer.n_tail or None)
        assert row["spectral_norm"] == pytest.approx((layer.largest_singular_value or 0) ** 2, rel=1e-15)
        assert row["num_spikes"] == (layer.spikes if layer.bulk else None)
        for key in ("alpha", "sigma", "xmin"):
            assert row[key] == getattr(layer, key)
    assert len({tuple(row) for row in rows}) == 1  # one set of columns


def test_table_beside_an_earlier_report() -> None:
    net = mlp()
    initial = esd_report(net, exclude="2")
    with torch.no_grad():
        net[0].weight.mul_(torch.linspace(1, 5, 60)[:, None])
    report = esd_report(net)
    rows = {row["layer"]: row for row in report.table(initial)}
    assert rows["0"]["alpha_initial"] == initial["0"].alpha
    assert rows["0"]["alpha"] == report["0"].alpha != initial["0"].alpha
    assert rows["0"]["spectral_norm_initial"] == initial["0"].metrics["spectral_norm"]
    assert rows["0"]["verdict_initial"] == "heavy"
    assert rows["2"]["verdict_initial"] is None  # it was not there
    assert (rows["2"]["alpha_initial"], rows["2"]["spectral_norm_initial"]) == (None, None)
    assert rows["3"]["alpha_initial"] is None
    assert rows["3"]["verdict_initial"] == "too_few"
    assert rows["3"]["spectral_norm_initial"] == initial["3"].metrics["spectral_norm"]
    assert len({tuple(row) for row in rows.values()}) == 1  # one set of columns


def test_layers_by_name() -> None:
    report = esd_report(network())
    assert report["head"] is report.layers[2]
    with pytest.raises(KeyError, match=r"'tail' is none of the layers: enc\.0, enc\.1, head"):
        report["tail"]


def test_results_are_frozen_and_keep_no_network() -> None:
    report = esd_report(mlp())
    with pytest.raises(AttributeError):
        report.layers = ()  # type: ignore[misc]
    copied = copy.deepcopy(report)
    assert copied.layers[0].alpha == report.layers[0].alpha
    assert not any(
        isinstance(value, nn.Module)
        for layer in report.layers
        for value in map(layer.__getattribute__, layer.__slots__)
    )


# -- as text and as a data frame -----------------------------------------------------------------------------


WITH_SPECTRUM = ('heavy, "quoted"', "light\nfolded", "constant", "few")


def odd_network() -> nn.ModuleDict:
    """Layers with every kind of missing value, and names that CSV and JSON must quote."""
    return nn.ModuleDict(
        {
            'heavy, "quoted"': linear(cauchy(60, 80)),
            "light\nfolded": linear(gaussian(50, 60)),
            "constant": linear(torch.eye(30)),
            "few": linear(gaussian(2, 60)),
            "nan": linear(torch.full((30, 30), math.nan)),
            "λ": linear(torch.zeros(30, 30)),
            "lazy": nn.LazyLinear(3),
        }
    )


@pytest.mark.parametrize("randomize", [False, True])
def test_csv_keeps_every_digit(randomize: bool) -> None:
    initial = esd_report(odd_network(), exclude="few")
    report = esd_report(odd_network(), randomize=randomize)
    for arguments in ((), (initial,)):
        table = report.table(*arguments)
        rows = list(csv.DictReader(io.StringIO(report.to_csv(*arguments), newline="")))
        assert [list(row) for row in rows] == [list(row) for row in table]
        for row, expected in zip(rows, table, strict=True):
            for key, value in expected.items():
                assert row[key] == "" if value is None else type(value)(row[key]) == value, key
    assert ("rand_distance" in table[0]) == randomize


@pytest.mark.parametrize("randomize", [False, True])
def test_json_is_valid_and_keeps_every_digit(randomize: bool) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = esd_report(odd_network(), include="*", exclude="nothing", randomize=randomize)
    loaded = json.loads(report.to_json(report), parse_constant=refuse)
    assert loaded.keys() == {"status", "summary", "layers"}
    assert loaded["status"] == {"code": "ok", "message": report.status.message}
    assert "nothing" in report.status.message
    assert loaded["summary"] == {key: None if math.isnan(value) else value for key, value in report.summary().items()}
    for row, expected, layer in zip(loaded["layers"], report.table(report), report.layers, strict=True):
        assert row.pop("message") == layer.status.message
        assert row == expected


def test_json_of_infinite_numbers() -> None:
    # λ_max is 1e308, the sum of all eigenvalues no float
    report = esd_report(linear(1e154 * torch.diag(torch.linspace(0.9, 1, 30, dtype=torch.float64))))
    assert report.layers[0].metrics["norm"] == math.inf
    (row,) = json.loads(report.to_json())["layers"]
    assert row["norm"] is None
    assert row["log_norm"] == pytest.approx(309.4, abs=0.1)


def test_data_frame() -> None:
    report = esd_report(odd_network())
    frame, table = report.to_dataframe(report), report.table(report)
    assert list(frame.columns) == list(table[0])
    assert list(frame["layer"]) == [row["layer"] for row in table]
    assert frame["alpha"].dtype == np.float64
    for row, expected in zip(frame.to_dict("records"), table, strict=True):
        for key, value in expected.items():
            assert (row[key] is None or row[key] != row[key]) if value is None else row[key] == value, key


def test_summary_is_the_mean_over_layers() -> None:
    report = esd_report(odd_network())
    summary = report.summary()
    assert list(summary) == [
        "alpha",
        "alpha_weighted",
        "log_alpha_norm",
        "log_norm",
        "log_spectral_norm",
        "stable_rank",
        "entropy",
        "mp_softrank",
    ]
    matrices = {
        name: np.linalg.svd(odd_network()[name].weight.detach(), compute_uv=False) ** 2 for name in WITH_SPECTRUM
    }
    alphas = [report[name].alpha for name in WITH_SPECTRUM[:2]]
    assert summary["alpha"] == pytest.approx(np.mean(alphas), rel=1e-12)
    assert summary["stable_rank"] == pytest.approx(np.mean([x.sum() / x.max() for x in matrices.values()]), rel=1e-6)
    norms = [np.log10(x.sum()) for x in matrices.values()]
    assert summary["log_norm"] == pytest.approx(np.mean(norms), rel=1e-6)
    assert type(summary["alpha"]) is float


# -- the same again --------------------------------------------------------------------------------------------


def contents(report: ESDReport) -> str:
    return report.to_json() + repr(report.scalars())


def test_a_report_is_deterministic() -> None:
    def drawn(seed: int | None) -> ESDReport:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return esd_report(odd_network(), randomize=True, generator=generator)

    first = contents(drawn(None))
    torch.manual_seed(99)
    assert contents(drawn(None)) == first  # whatever the global random state
    assert contents(drawn(3)) == contents(drawn(3))
    heavy = WITH_SPECTRUM[0]
    assert drawn(3)[heavy].metrics["rand_distance"] != drawn(4)[heavy].metrics["rand_distance"]
    shuffled = [drawn(seed)[heavy].verdict.evidence.shuffled for seed in (3, 4)]  # type: ignore[union-attr]
    assert shuffled[0].evidence.fit.alpha != shuffled[1].evidence.fit.alpha
