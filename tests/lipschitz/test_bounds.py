import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.lipschitz import Feedforward, General, LipschitzBound, lipschitz_bound, verify
from fpstab.results import AnalysisError
from tests.lipschitz.networks import SLOPES, Array, Pair, all_patterns, attack, gaussian, norm, random_case, textbook

RELU = (0.0, 1.0)


def check_bound(weights: list[Array], slopes: list[Pair], bound: LipschitzBound) -> None:
    """What holds for every bound of every network."""
    assert bound.certified
    assert bound.status.ok
    assert bound.rel_gap <= 1e-6
    assert attack(weights, slopes) <= bound.value * (1 + 1e-13)
    assert bound.slopes_lower <= bound.value
    assert bound.optimum_lower <= bound.value
    assert bound.value <= bound.eclipse_fast
    assert bound.value <= bound.spectral_product
    if bound.multipliers:
        assert verify(weights, slopes, bound.multipliers, bound.value)
        assert not verify(weights, slopes, bound.multipliers, bound.slopes_lower * (1 - 1e-6))


@pytest.mark.parametrize("seed", range(24))
def test_random_networks(seed: int) -> None:
    weights, slopes = random_case(seed)
    bound = lipschitz_bound(weights, slopes=slopes)
    check_bound(weights, slopes, bound)
    layer = lipschitz_bound(weights, slopes=slopes, form="layer")
    check_bound(weights, slopes, layer)
    assert bound.value <= layer.value * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_transposing_and_rescaling_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, slopes = random_case(8 * seed)
    value = lipschitz_bound(weights, slopes=slopes).value
    transposed = lipschitz_bound([w.T for w in reversed(weights)], slopes=slopes[::-1])
    assert transposed.value == pytest.approx(value, rel=1e-7)
    for layer, (alpha, _) in enumerate(slopes):
        factors = 10 ** rng.uniform(-2, 2, size=len(alpha))
        weights[layer], weights[layer + 1] = factors[:, None] * weights[layer], weights[layer + 1] / factors
    assert lipschitz_bound(weights, slopes=slopes).value == pytest.approx(value, rel=1e-7)


def test_symmetries() -> None:
    rng = np.random.default_rng(0)
    weights = gaussian(4, 7, 6, 3)
    value = lipschitz_bound(weights, slopes=(0.0, 1.0)).value
    order, Q, R = rng.permutation(7), np.linalg.qr(rng.normal(size=(4, 4)))[0], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = [(weights[0] @ Q)[order], weights[1][:, order], R @ weights[2]]
    assert lipschitz_bound(moved, slopes=RELU).value == pytest.approx(value, rel=1e-8)
    assert lipschitz_bound([5 * weights[0], *weights[1:]], slopes=RELU).value == pytest.approx(5 * value, rel=1e-8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layer", [False, True])
def test_against_the_textbook(seed: int, layer: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = gaussian(*rng.integers(1, 7, size=rng.integers(3, 6)), seed=seed)
    alpha, beta = SLOPES[seed]
    value, _ = textbook(weights, alpha, beta, layer=layer)
    bound = lipschitz_bound(weights, slopes=(alpha, beta), form="layer" if layer else "neuron")
    assert bound.lipsdp == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_against_all_patterns(seed: int) -> None:
    weights, pair = gaussian(3, 5, 4, 2, seed=seed), SLOPES[seed]
    slopes = [(np.full(n, pair[0]), np.full(n, pair[1])) for n in (5, 4)]
    truth = all_patterns(weights, slopes)
    bound = lipschitz_bound(weights, slopes=pair)
    assert truth <= bound.value
    assert bound.slopes_lower <= truth * (1 + 1e-12)
    assert bound.value <= 1.3 * truth


@pytest.mark.parametrize("seed", range(8))
def test_nonnegative_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.random((n, m)) for m, n in ((3, 9), (9, 5), (5, 4))]
    truth = norm(weights[2] @ weights[1] @ weights[0])
    bound = lipschitz_bound(weights, slopes=RELU)
    assert truth * (1 - 1e-15) <= bound.value <= truth * (1 + 1e-8)
    assert truth * (1 - 1e-15) <= bound.lipsdp <= truth * (1 + 1e-8)
    assert bound.exact


def test_two_relus() -> None:
    """relu(x) − relu(x − 1) has constant 1; one of the couplings between neurons that LipSDP-Network adds makes it 0."""
    bound = lipschitz_bound([[[1.0], [1.0]], [[1.0, -1.0]]], slopes=RELU)
    assert 1.0 <= bound.value <= 1.0 + 1e-8
    assert bound.exact


@pytest.mark.parametrize("seed", range(5))
def test_scalar_networks(seed: int) -> None:
    """One input, one output, one hidden layer: the larger of the sums of the positive and the negative products."""
    first, second = gaussian(1, 11, 1, seed=seed)
    products = first[:, 0] * second[0]
    truth = max(products[products > 0].sum(), -products[products < 0].sum())
    bound = lipschitz_bound([first, second], slopes=RELU)
    assert truth * (1 - 1e-14) <= bound.value <= truth * (1 + 1e-8)
    assert bound.exact


@pytest.mark.parametrize("slopes", SLOPES)
def test_a_head_behind_an_identity(slopes: tuple[float, float]) -> None:
    W = np.random.default_rng(0).normal(size=(4, 9))
    truth = max(map(abs, slopes)) * norm(W)
    bound = lipschitz_bound([np.eye(9), W], slopes=slopes)
    assert truth * (1 - 1e-14) <= bound.lipsdp <= truth * (1 + 1e-8)


def test_linear_networks() -> None:
    weights = gaussian(5, 4, 6, 3)
    truth = norm(weights[2] @ weights[1] @ weights[0])
    for slopes, factor in (((1.0, 1.0), 1.0), ((-0.5, -0.5), 0.25)):
        bound = lipschitz_bound(weights, slopes=slopes)
        assert truth * factor <= bound.value <= truth * factor * (1 + 1e-12)
        assert (bound.method, bound.exact, bound.rel_gap) == ("linear", True, 0.0)
    single = lipschitz_bound([weights[0]])
    assert norm(weights[0]) <= single.value <= norm(weights[0]) * (1 + 1e-12)


def test_linear_neurons_among_others() -> None:
    """Neurons with alpha = beta fold away: the limit of ever narrower slopes."""
    weights = gaussian(3, 5, 4, 2)
    alpha, beta = np.array([0.0, 0.3, 0.0, 1.0, -1.0]), np.array([1.0, 0.3, 1.0, 1.0, -1.0])
    slopes = [(alpha, beta), (np.zeros(4), np.ones(4))]
    bound = lipschitz_bound(weights, slopes=slopes)
    check_bound(weights, slopes, bound)
    for width in (1e-2, 1e-3, 1e-4):
        wider = lipschitz_bound(weights, slopes=[(alpha - width, beta + width), slopes[1]])
        assert bound.value <= wider.value <= bound.value * (1 + 3 * width)


def test_constant_networks_have_constant_zero() -> None:
    W, V = gaussian(3, 4, 2)
    for weights in ([W, np.zeros((2, 4))], [np.zeros((4, 3)), V], [np.zeros((2, 3))]):
        bound = lipschitz_bound(weights, slopes=RELU)
        assert (bound.value, bound.exact, bound.certified, bound.method) == (0.0, True, True, "zero")
    assert lipschitz_bound([W, V], slopes=(0.0, 0.0)).value == 0.0
    disconnected = [W * np.array([[1.0], [1.0], [0.0], [0.0]]), V * np.array([0.0, 0.0, 1.0, 1.0])]
    assert lipschitz_bound(disconnected, slopes=RELU).value == 0.0
    assert verify(disconnected, RELU, [np.zeros(4)], 0.0)


def test_dead_neurons_play_no_part() -> None:
    W, V = gaussian(3, 6, 2)
    value = lipschitz_bound([W, V], slopes=RELU).value
    dead_w = np.vstack([W[:2], np.zeros((1, 3)), W[2:], np.ones((1, 3))])
    dead_v = np.hstack([V[:, :2], 9 * np.ones((2, 1)), V[:, 2:], np.zeros((2, 1))])
    bound = lipschitz_bound([dead_w, dead_v], slopes=RELU)
    assert bound.value == pytest.approx(value, rel=1e-9)
    assert bound.multipliers[0][[2, 7]].tolist() == [0.0, 0.0]


def test_rank_one() -> None:
    rng = np.random.default_rng(3)
    weights = [np.outer(rng.normal(size=8), rng.normal(size=4)), np.outer(rng.normal(size=3), rng.normal(size=8))]
    check_bound(weights, [(np.zeros(8), np.ones(8))], lipschitz_bound(weights, slopes=RELU))


@pytest.mark.parametrize("exponents", [(500, -500, 0), (-500, 0, 500), (498, 0, 0), (0, -498, 0), (27, 27, -27)])
def test_scales_of_single_layers(exponents: tuple[int, int, int]) -> None:
    weights = gaussian(4, 7, 6, 3)
    value = lipschitz_bound(weights, slopes=RELU).value
    scaled = [np.ldexp(w, e) for w, e in zip(weights, exponents, strict=True)]
    bound = lipschitz_bound(scaled, slopes=RELU)
    assert bound.value == math.ldexp(value, sum(exponents))  # powers of two: every digit
    assert verify(scaled, RELU, bound.multipliers, bound.value)


def test_scales_of_single_neurons() -> None:
    W, V = gaussian(4, 7, 3)
    scale = 10.0 ** np.array([150.0, -150.0, 0.0, 20.0, -20.0, 0.0, 1.0])
    value = lipschitz_bound([W, V], slopes=RELU).value
    assert lipschitz_bound([scale[:, None] * W, V / scale], slopes=RELU).value == pytest.approx(value, rel=1e-7)


def test_overflow_is_infinite_and_says_so() -> None:
    W, V = gaussian(4, 7, 3)
    bound = lipschitz_bound([1e200 * W, 1e200 * V], slopes=RELU, throw=False)
    assert (bound.value, bound.certified, bound.exact, bound.status.code) == (math.inf, False, False, "overflow")
    with pytest.raises(AnalysisError, match="rescale the weights"):
        lipschitz_bound([1e200 * W, 1e200 * V], slopes=RELU)
    tiny = lipschitz_bound([1e-200 * W, 1e-200 * V], slopes=RELU)
    assert 0.0 < tiny.value <= 1e-320
    assert lipschitz_bound([1e-310 * W, V], slopes=RELU).value > 0.0


def residual(seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 5)) * 0.5, rng.normal(size=(5, 8)) * 0.3


def test_residual_blocks() -> None:
    W, V = residual()
    bound = lipschitz_bound(General(np.zeros((8, 8)), W, V, np.eye(5), 0.0, 1.0))
    patterns = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(float)
    truth = max(norm(np.eye(5) + (V * pattern) @ W) for pattern in patterns)
    assert truth <= bound.value <= 1.1 * truth
    assert bound.spectral_product == pytest.approx(1 + norm(V) * norm(W), rel=1e-9)
    assert bound.value < 0.8 * bound.spectral_product
    assert bound.status.ok


def test_a_general_network_may_be_a_feedforward_one() -> None:
    W1, W2, W3 = gaussian(3, 5, 4, 2)
    A = np.zeros((9, 9))
    A[5:, :5] = W2
    general = General(
        A,
        np.vstack([W1, np.zeros((4, 3))]),
        np.hstack([np.zeros((2, 5)), W3]),
        np.zeros((2, 3)),
        0.0,
        1.0,
        layers=(5, 4),
    )
    for form in ("neuron", "layer"):
        expected = lipschitz_bound([W1, W2, W3], slopes=RELU, form=form)
        bound = lipschitz_bound(general, form=form)
        assert bound.lipsdp == pytest.approx(expected.lipsdp, rel=1e-7)
        assert bound.spectral_product == pytest.approx(expected.spectral_product, rel=1e-12)
        assert len(bound.multipliers) == 2
        assert verify(general, multipliers=bound.multipliers, L=bound.value)


def equilibrium(scale: float, seed: int = 0) -> General:
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(20, 20))
    return General(
        scale * W / norm(W),
        rng.normal(size=(20, 5)),
        rng.normal(size=(3, 20)),
        np.zeros((3, 5)),
        0.0,
        1.0,
        implicit=True,
    )


@pytest.mark.parametrize("form", ["neuron", "layer"])
def test_equilibrium_models(form: str) -> None:
    net = equilibrium(0.9)
    bound = lipschitz_bound(net, form=form)  # type: ignore[arg-type]
    assert bound.status.ok
    assert bound.value < 0.3 * bound.spectral_product
    rng = np.random.default_rng(1)
    A, B, C = net.A.numpy(), net.B.numpy(), net.C.numpy()
    for _ in range(300):  # attained: derivatives of equilibria
        slopes = (rng.random(20) < rng.random()).astype(float)
        assert norm(C @ np.linalg.solve(np.eye(20) - slopes[:, None] * A, slopes[:, None] * B)) <= bound.value
    assert verify(net, multipliers=bound.multipliers, L=bound.value)


def test_equilibrium_models_without_a_proof() -> None:
    bound = lipschitz_bound(equilibrium(5.0), throw=False)
    assert (bound.value, bound.certified, bound.status.code) == (math.inf, False, "not_certified")
    with pytest.raises(AnalysisError, match="unique equilibrium"):
        lipschitz_bound(equilibrium(5.0))
    loop = General([[1.0]], [[1.0]], [[1.0]], [[0.0]], 0.0, 1.0, implicit=True)  # y = relu(y + x): many equilibria
    assert lipschitz_bound(loop, throw=False).status.code == "not_certified"


def test_a_large_but_stable_equilibrium_model() -> None:
    """y = relu(−2y + x): ‖A‖ > 1, but one equilibrium, of slope 1/3."""
    net = General([[-2.0]], [[1.0]], [[1.0]], [[0.0]], 0.0, 1.0, implicit=True)
    bound = lipschitz_bound(net)
    assert 1 / 3 <= bound.value <= 1 / 3 * (1 + 1e-8)
    assert bound.spectral_product == math.inf


def test_linear_neurons_of_an_equilibrium_model() -> None:
    net = equilibrium(0.9)
    alpha, beta = np.r_[np.zeros(10), np.full(10, 0.5)], np.r_[np.ones(10), np.full(10, 0.5)]
    arrays = net.A, net.B, net.C, net.D
    bound = lipschitz_bound(General(*arrays, alpha, beta, implicit=True))  # type: ignore[arg-type]
    wider = lipschitz_bound(General(*arrays, alpha - 1e-4, beta + 1e-4, implicit=True))  # type: ignore[arg-type]
    assert bound.value <= wider.value
    assert bound.value == pytest.approx(wider.value, rel=1e-3)
    assert bound.rel_gap <= 1e-6


def test_softmax_on_top() -> None:
    weights = gaussian(6, 9, 4)
    plain, soft = (lipschitz_bound(weights, slopes=RELU, head=head) for head in (None, "softmax"))  # type: ignore[arg-type]
    assert soft.value == pytest.approx(plain.value / 2, rel=1e-12)
    linear = lipschitz_bound([weights[0]], head="softmax")
    widest = max(float(np.linalg.norm(a - b)) for a in weights[0] for b in weights[0])
    assert linear.value == pytest.approx(widest * 2**0.5 / 4, rel=1e-12)
    assert linear.method == "softmax"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "network"}, "LipSDP-Network couples neurons and is not a bound"),
        ({"form": "network-rand"}, "is refused"),
        ({"form": "neurons"}, "expected 'neuron' or 'layer'"),
        ({"head": "sigmoid"}, "expected None or 'softmax'"),
        ({"backend": "scs"}, "backend='scs' is unknown"),
        ({"rtol": 0.0}, "rtol=0.0 is out of range"),
        ({"time_limit": 0.0}, "time_limit=0.0 is out of range"),
        ({"slopes": (1.0, 0.0)}, "alpha = 1 > beta = 0"),
        ({"slopes": [RELU, RELU]}, "2 pairs of slopes for 2 weights"),
    ],
)
def test_bad_arguments(options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        lipschitz_bound(gaussian(2, 3, 2), **({"slopes": RELU} | options))


def test_what_is_no_network() -> None:
    for thing in (3, "abc", None):
        with pytest.raises(TypeError, match="is no network"):
            lipschitz_bound(thing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has its own slopes"):
        lipschitz_bound(Feedforward((torch.eye(2),), ()), slopes=RELU)


def test_time_limit() -> None:
    bound = lipschitz_bound(gaussian(20, 60, 60, 5), slopes=RELU, time_limit=1e-6)
    assert bound.status.code == "time_limit"
    assert bound.certified
    assert bound.value <= bound.spectral_product


def test_an_interrupt_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from fpstab.lipschitz import interior_point

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    weights = gaussian(3, 6, 2)
    before = lipschitz_bound(weights, slopes=RELU).value
    with monkeypatch.context() as patch:
        patch.setattr(interior_point, "_normal_matrix", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lipschitz_bound(weights, slopes=RELU)
    assert lipschitz_bound(weights, slopes=RELU).value == before


def test_a_failing_solver_leaves_the_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    from fpstab.lipschitz import interior_point

    def fail(*args: object, **options: object) -> None:
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr(interior_point, "solve", fail)
    bound = lipschitz_bound(gaussian(3, 6, 2), slopes=RELU)
    assert bound.status.code == "solver_failed"
    assert bound.certified
    assert bound.method in ("closed_form", "eclipse_fast", "spectral_product")
    assert bound.slopes_lower <= bound.value <= min(bound.eclipse_fast, bound.spectral_product)
    assert bound.lipsdp == math.inf


def test_the_result_is_deterministic_and_leaves_the_random_state_alone() -> None:
    weights = gaussian(4, 7, 6, 3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    first, second = (lipschitz_bound(weights, slopes=RELU) for _ in range(2))
    assert first.value == second.value
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[arg-type, index]  # noqa: NPY002


def test_scalars_and_table() -> None:
    bound = lipschitz_bound(gaussian(4, 7, 3), slopes=RELU)
    scalars = bound.scalars()
    assert scalars["value"] == bound.value
    assert math.isnan(scalars["sampled_lower"])
    assert all(isinstance(value, float) for value in scalars.values())
    rows = {row["quantity"]: row for row in bound.table()}
    assert rows["value"]["value"] == bound.value
    assert "certified" in rows["value"]["meaning"]
    assert all(tensor.dtype == torch.float64 for tensor in bound.multipliers)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.2, 3.0))
def test_homogeneity_in_the_slopes(seed: int, scale: float) -> None:
    weights = gaussian(3, 6, 2, seed=seed)
    alpha, beta = SLOPES[seed % 10]
    value = lipschitz_bound(weights, slopes=(alpha, beta)).value
    assert lipschitz_bound(weights, slopes=(scale * alpha, scale * beta)).value == pytest.approx(
        scale * value, rel=1e-7
    )
