"""Theorem 6 of paper 3 and what it rests on, by counterexamples; its statements on linearisations and weights."""

import itertools
import math

import torch
from torch import Generator, Tensor, nn

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.fixed_points import find_fixed_points
from fpstab.jacobian import affine_map

SUBMULTIPLICATIVE = Claim(
    3, "eq. (10)", "ρ(A₁⋯A_m) ≤ ρ(A₁)⋯ρ(A_m).", "One pair with ρ(AB) > ρ(A)ρ(B) + 1e-9 breaks it.", "≤"
)
SUFFICIENT = Claim(
    3,
    "Theorem 6, sufficient condition",
    "ρ(A_i) ≤ 1 and ρ(Λ) ≤ 1 for all layers and points make a network globally stable.",
    "One network of that kind with an orbit beyond 1e6 breaks it.",
)
SUFFICIENT_POINTWISE = Claim(
    3,
    "Theorem 6, ρ(A*) < 1 everywhere",
    "A network whose A*(x) is stable at every x is globally stable.",
    "One bias-free ReLU network with ρ(A*) < 1 on every one of its cones, all of them looked at, and an orbit beyond 1e6 "
    "breaks it.",
)
NECESSARY = Claim(
    3,
    "Theorem 6, necessary condition",
    "A globally stable network has ρ(A*(x)) ≤ 1 at every x.",
    "One network with ρ(A*) > 1 somewhere, all of whose orbits halve every second step (to 1e-12, 1,000 starts), breaks it.",
)
BIAS = Claim(
    3,
    "§4, bias terms",
    "Biases do not affect eigenvalues, stability or convergence.",
    "tanh(2x) without and with a bias in (1, 2): another number of attracting fixed points breaks it.",
)
EQUILIBRIUM = Claim(
    3,
    "§4, x̄ = b_L",
    "With biases, and the sufficient condition strict, the equilibrium is x̄ = b_L.",
    "A random ReLU layer with ‖W‖₂ = .5 and positive bias, 3 neurons: x̄ within 1e-6 of b reproduces it; of "
    "(I − A*)⁻¹b*, A* and b* at x̄, and not of b: corrected.",
)
EIGENVECTORS = Claim(
    3,
    "§3.3",
    "Activations affect only the eigenvalues of a network and do not change its eigenvectors.",
    "One layer ΛW, Λ positive: an eigenvector of W that is turned by more than 1e-6 breaks it.",
)
PROBABILITY_ZERO = Claim(
    3,
    "§3.1, App. A",
    "A*(x) is undefined at points of probability 0 only.",
    "1,000 random points, random bias-free ReLU networks of 4 layers of 2 neurons, 50 of them: an exact z_i = 0 at more than 1 % "
    "of the points breaks it; a one-sided derivative there that gives back f(x) to 1e-12 at all of them: corrected.",
    "0",
)
UNIQUE = Claim(
    3,
    "Lemma 3",
    "A network is f(x) = A*(x)x + b*(x) with *the* exact pointwise linearisation A*.",
    "A tanh network at 100 points: two A that differ by more than 1e-3 and both give back f(x) to 1e-12: corrected (one of many); "
    "the printed one not giving it back: not reproduced; else reproduced.",
)
TAYLOR = Claim(
    3,
    "Proposition 12",
    "For ReLU networks A*(x) is the Jacobian.",
    "Random networks of 3 layers with biases at 200 points each, ReLU: all equal to 1e-12; tanh must differ, so that it says "
    "something.",
)
DEPTH = Claim(
    3,
    "§4, depth",
    "Repeating a stable layer shrinks the spectral radius with every layer.",
    "A layer with ρ(W) < 1 and ReLU, repeated 1, 2, 4, 8 times, whose ρ(A*) at one point grows each time, breaks it.",
)
GERSHGORIN = Claim(
    3,
    "eq. (26), “complex” with n = 2",
    "Gershgorin weights of two rows, with complex eigenvalues.",
    "200 random ones as printed: an eigenvalue with an imaginary part above 1e-9 reproduces it. If there is none, and signed "
    "entries of the same row sums have some, and none outside of the disc: corrected.",
)
SOFT_ORTHOGONALITY = Claim(
    3,
    "eq. (22), (23)",
    "Singular values, with U and V kept orthogonal by (22), are within their bounds.",
    "60 steps of Adam towards a larger matrix with (22) in the loss, 4 rows, σ in [0, 1]: ‖W‖₂ above 1 + 1e-3 breaks it; "
    "reflectors in place of (22) that stay below 1 + 1e-9: corrected.",
    "≤ 1",
)
HAMILTONIAN = Claim(
    3,
    "eq. (25)",
    "“Hamiltonian” weights have dominant eigenvalue 1 and are stable whatever A is.",
    "20 random A: ρ within 1e-6 of 1 for all reproduces it; ρ = σ_max(A) to 1e-9 for all, and one not 1: corrected.",
    "1",
)
PERRON_FROBENIUS = Claim(
    3,
    "eq. (21)",
    "All eigenvalues are between λ_min and λ_max.",
    "50 random ones, 3 rows, [.5, .9]: all moduli within (1e-6) reproduces it; the dominant one within and others below: "
    "corrected.",
)


def submultiplicative(seed: int = 0) -> Finding:
    """(10) for a nilpotent matrix and its transpose. Nothing is drawn."""
    a = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    left, right = _radius(a @ a.T), _radius(a) * _radius(a.T)
    verdict: Verdict = "not reproduced" if left > right + 1e-9 else "inconclusive"
    return SUBMULTIPLICATIVE.found(
        verdict, f"[[0, 2], [0, 0]] and its transpose: ρ(AB) = {left:g}, ρ(A)ρ(B) = {right:g}.", left
    )


def sufficient(seed: int = 0) -> Finding:
    """One ReLU layer with ρ(W) = 0. Nothing is drawn."""
    w = torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
    x = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(40):
        x = (w @ x).relu()
    radius, size = _radius(w), float(x.norm())
    verdict: Verdict = "not reproduced" if radius <= 1 and size > 1e6 else "inconclusive"
    said = f"relu(Wx), W = [[2, 2], [−2, −2]]: ρ(W) = {radius:.1g}, and after 40 steps from (1, 0) ‖x‖ = {size:.2g}."
    return SUFFICIENT.found(verdict, said, radius)


_W1 = ((3, -3), (-1, -2), (-1, 3), (-3, -2))
_W2 = ((-1, 2, -3, 2), (2, -1, -3, 0))
_SHRINK = 10.4  # between the largest ρ on a cone, 10.15, and the growth along an orbit, 10.68 a step


def sufficient_pointwise(seed: int = 0) -> Finding:
    """A two-layer ReLU network whose linear pieces are all stable and which diverges, since it changes between them."""
    first = torch.tensor(_W1, dtype=torch.float64)
    second = torch.tensor(_W2, dtype=torch.float64) / _SHRINK
    # the cones end where a neuron's input is 0: at right angles to the rows of the first layer
    edges = torch.atan2(first[:, 0], -first[:, 1])
    edges = torch.cat((edges, edges + math.pi)).remainder(2 * math.pi).sort().values
    middles = edges + (edges.roll(-1) - edges).remainder(2 * math.pi) / 2
    inside = torch.stack((middles.cos(), middles.sin()), 1)
    pieces = affine_map(lambda x: (x @ first.T).relu() @ second.T, inside, mode="paper")
    radius = float(pieces.spectral_radius().amax())
    x = torch.randn(50, 2, generator=Generator().manual_seed(seed), dtype=torch.float64)
    for _ in range(1500):
        x = (x @ first.T).relu() @ second.T
    size = float(x.norm(dim=1).amax())
    verdict: Verdict = "not reproduced" if radius < 1 and size > 1e6 else "inconclusive"
    said = f"2-4-2 ReLU: the largest ρ(A*) of its {len(inside)} cones is {radius:.4f}, and after 1,500 steps ‖x‖ is {size:.2g}."
    return SUFFICIENT_POINTWISE.found(verdict, said, radius, sample=len(inside))


def necessary(seed: int = 0) -> Finding:
    """f(x) = −2 relu(x) + ¼ relu(−x), whose second iterate is x/2."""

    def f(x: Tensor) -> Tensor:
        return -2 * x.relu() + 0.25 * (-x).relu()

    x = torch.randn(1000, 1, generator=Generator().manual_seed(seed), dtype=torch.float64)
    radius = float(affine_map(f, x, mode="paper").spectral_radius().amax())
    off = float((f(f(x)) - x / 2).abs().amax())
    verdict: Verdict = "not reproduced" if radius > 1 and off < 1e-12 else "inconclusive"
    said = f"−2 relu(x) + relu(−x)/4: ρ(A*) = {radius:g} for x > 0, and f(f(x)) = x/2 to {off:.1g}."
    return NECESSARY.found(verdict, said, radius, sample=len(x))


def bias(seed: int = 0) -> Finding:
    """A bias that makes one attractor of two."""
    b = 1 + float(torch.rand((), generator=Generator().manual_seed(seed)))
    starts = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    counts = []
    for value in (0.0, b):
        found = find_fixed_points(lambda x, value=value: torch.tanh(2 * x + value), starts)
        counts.append(found.kind.count("attracting"))
    verdict: Verdict = "not reproduced" if counts[0] != counts[1] else "reproduced"
    said = f"tanh(2x + b) has {counts[0]} attracting fixed points at b = 0 and {counts[1]} at b = {b:.3f}."
    return BIAS.found(verdict, said, float(counts[1]))


def equilibrium(seed: int = 0) -> Finding:
    """The equilibrium of a stable ReLU layer."""
    generator = Generator().manual_seed(seed)
    w = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    w *= 0.5 / torch.linalg.matrix_norm(w, 2)
    b = 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
    layer = _layer(w, b)
    points = find_fixed_points(layer, torch.randn(20, 3, generator=generator, dtype=torch.float64)).points
    at = affine_map(layer, points, mode="paper")
    ours = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - at.A[0], at.b[0])
    off = float((points[0] - b).norm())
    own = float((points[0] - ours).norm())
    verdict: Verdict = (
        "reproduced" if off < 1e-6 else "corrected" if own < 1e-6 and len(points) == 1 else "not reproduced"
    )
    said = f"{len(points)} fixed point, {off:.3f} from b and {own:.1g} from (I − A*)⁻¹b*."
    return EQUILIBRIUM.found(verdict, said, off)


def eigenvectors(seed: int = 0) -> Finding:
    """The eigenvectors of ΛW are not those of W."""
    generator = Generator().manual_seed(seed)
    w = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    w = w + w.T
    factors = 0.2 + 0.8 * torch.rand(4, generator=generator, dtype=torch.float64)
    _values, vectors = torch.linalg.eigh(w)
    moved = factors[:, None] * (w @ vectors)
    cosine = (moved * vectors).sum(0).abs() / moved.norm(dim=0)
    angle = float(torch.arccos(cosine.clamp(max=1.0)).amax())
    verdict: Verdict = "not reproduced" if angle > 1e-6 else "reproduced"
    return EIGENVECTORS.found(verdict, f"ΛW turns an eigenvector of W by {math.degrees(angle):.1f}°.", angle, sample=4)


def probability_zero(seed: int = 0) -> Finding:
    """Layers whose neurons are all dead give exact zeros to the next one."""
    generator = Generator().manual_seed(seed)
    x = 12 * torch.rand(1000, 2, generator=generator, dtype=torch.float64) - 6
    shares, errors = [], []
    for _ in range(50):
        layers = [_layer(torch.randn(2, 2, generator=generator, dtype=torch.float64)) for _ in range(4)]
        net = nn.Sequential(*(module for layer in layers for module in layer))
        h, hit = x, torch.zeros(len(x), dtype=torch.bool)
        with torch.no_grad():
            for linear, activation in layers:
                z = linear(h)
                hit |= (z == 0).any(1)
                h = activation(z)
        shares.append(float(hit.double().mean()))
        errors.append(float((_apply(affine_map(net, x), x) - h).abs().amax()))
    share = sum(shares) / len(shares)
    verdict: Verdict = "reproduced" if share <= 0.01 else "corrected" if max(errors) <= 1e-12 else "not reproduced"
    said = f"{share:.0%} of the points meet an exact 0; with the derivative from the left f comes back to {max(errors):.1g}."
    return PROBABILITY_ZERO.found(verdict, said, share, sample=50)


def unique(seed: int = 0) -> Finding:
    """Three linearisations of one network."""
    net, x = _network(nn.Tanh, seed)
    with torch.no_grad():
        truth = net(x)
    maps = {mode: affine_map(net, x, mode=mode) for mode in ("paper", "shifted", "tangent")}
    errors = {mode: float((_apply(found, x) - truth).abs().amax()) for mode, found in maps.items()}
    apart = float((maps["paper"].A - maps["tangent"].A).abs().amax())
    if errors["paper"] > 1e-12:
        verdict: Verdict = "not reproduced"
    else:
        verdict = "corrected" if apart > 1e-3 and errors["tangent"] <= 1e-12 else "reproduced"
    said = f"A by σ(z)/z and by σ'(z) differ by {apart:.2g}, and both give f back, to {max(errors.values()):.1g}."
    return UNIQUE.found(verdict, said, apart, sample=len(x))


def taylor(seed: int = 0) -> Finding:
    """A* and the Jacobian, of ReLU and of tanh."""
    apart = []
    for activation in (nn.ReLU, nn.Tanh):
        net, x = _network(activation, seed)
        jacobian = torch.func.vmap(torch.func.jacrev(net))(x).detach()
        apart.append(float((affine_map(net, x, mode="paper").A - jacobian).abs().amax()))
    relu, tanh = apart
    verdict: Verdict = "inconclusive" if tanh < 1e-3 else "reproduced" if relu <= 1e-12 else "not reproduced"
    return TAYLOR.found(verdict, f"A* and J differ by {relu:.1g} for ReLU, by {tanh:.2g} for tanh.", relu, sample=200)


def depth(seed: int = 0) -> Finding:
    """ρ(A*) of a layer with ρ(W) = 0, repeated. Nothing is drawn."""
    w = torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
    layer, x = _layer(w), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    radii = []
    for repeats in (1, 2, 4, 8):
        net = nn.Sequential(*(module for _ in range(repeats) for module in layer))
        radii.append(float(affine_map(net, x, mode="paper").spectral_radius()))
    grows = all(later > earlier for earlier, later in itertools.pairwise(radii))
    verdict: Verdict = "not reproduced" if grows and _radius(w) < 1 else "inconclusive"
    said = f"relu(Wx) with ρ(W) = {_radius(w):.1g}: ρ(A*) at (1, 0) is {', '.join(f'{r:g}' for r in radii)} for 1, 2, 4, 8 layers."
    return DEPTH.found(verdict, said, radii[-1], sample=4)


def gershgorin(seed: int = 0) -> Finding:
    """The printed form with two rows is one symmetric matrix."""
    from fpstab.stability.parametrizations import Gershgorin

    generator = Generator().manual_seed(seed)
    free = [torch.randn(2, 2, generator=generator, dtype=torch.float64) for _ in range(200)]
    printed = torch.stack([Gershgorin(0.0, 1.0, literal=True)(x) for x in free])
    signed = torch.stack([Gershgorin(0.0, 1.0)(x) for x in free])
    imaginary = [float(torch.linalg.eigvals(w).imag.abs().amax()) for w in (printed, signed)]
    outside = float((torch.linalg.eigvals(signed) - 0.5).abs().amax()) - 0.5
    different = float((printed - printed[0]).abs().amax())
    if imaginary[0] > 1e-9:
        verdict: Verdict = "reproduced"
    else:
        verdict = "corrected" if imaginary[1] > 1e-9 and outside <= 1e-12 else "not reproduced"
    said = (
        f"As printed all 200 differ by {different:.1g} and have imaginary parts up to {imaginary[0]:.1g}; with signs up to "
        f"{imaginary[1]:.2f}."
    )
    return GERSHGORIN.found(verdict, said, imaginary[0], sample=200)


def soft_orthogonality(seed: int = 0) -> Finding:
    """A penalty is no constraint."""
    from fpstab.stability.parametrizations import BoundedSVD, orthogonality_penalty

    generator = Generator().manual_seed(seed)
    target = 3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    norms = []
    for soft in (True, False):
        start = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        layer = nn.Linear(4, 4, bias=False, dtype=torch.float64, device="meta").to_empty(device="cpu")
        layer.weight = nn.Parameter(start)
        nn.utils.parametrize.register_parametrization(layer, "weight", BoundedSVD(0.0, 1.0, soft=soft))
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (layer.weight - target).square().mean()
            if soft:
                loss = loss + orthogonality_penalty(layer)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        norms.append(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)))
    verdict: Verdict = (
        "reproduced" if norms[0] <= 1 + 0.001 else "corrected" if norms[1] <= 1 + 1e-09 else "not reproduced"
    )
    said = f"‖W‖₂ = {norms[0]:.4f} with the penalty, {norms[1]:.6f} with reflectors."
    return SOFT_ORTHOGONALITY.found(verdict, said, norms[0])


def hamiltonian(seed: int = 0) -> Finding:
    """Block-skew weights turn by the singular values of A."""
    from fpstab.stability.parametrizations import BlockSkew

    generator = Generator().manual_seed(seed)
    a = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    radii = torch.stack([torch.linalg.eigvals(BlockSkew()(matrix)).abs().amax() for matrix in a])
    off = float((radii - torch.linalg.matrix_norm(a, 2)).abs().amax())
    if bool(((radii - 1).abs() < 1e-6).all()):
        verdict: Verdict = "reproduced"
    else:
        verdict = "corrected" if off < 1e-9 else "not reproduced"
    said = f"ρ is from {float(radii.amin()):.2f} to {float(radii.amax()):.2f}, σ_max(A) to {off:.1g}."
    return HAMILTONIAN.found(verdict, said, float(radii.amax()), sample=20)


def perron_frobenius(seed: int = 0) -> Finding:
    """The theorem bounds the dominant eigenvalue only."""
    from fpstab.stability.parametrizations import PerronFrobenius

    generator, least, dominant = Generator().manual_seed(seed), math.inf, []
    for _ in range(50):
        a, m = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        moduli = torch.linalg.eigvals(PerronFrobenius(0.5, 0.9)(a, m)).abs()
        dominant.append(float(moduli.amax()))
        least = min(least, float(moduli.amin()))
    within = min(dominant) >= 0.5 - 1e-6 and max(dominant) <= 0.9 + 1e-6
    verdict: Verdict = "not reproduced" if not within else "corrected" if least < 0.5 - 1e-6 else "reproduced"
    said = f"The dominant ones are from {min(dominant):.3f} to {max(dominant):.3f}, the least modulus is {least:.1g}."
    return PERRON_FROBENIUS.found(verdict, said, least, sample=50)


def _radius(matrix: Tensor) -> float:
    return float(torch.linalg.eigvals(matrix).abs().amax())


def _layer(weight: Tensor, bias: Tensor | None = None, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=torch.float64, device="meta").to_empty(
        device="cpu"
    )  # the global generator is left alone
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return nn.Sequential(linear, activation())


def _network(activation: type[nn.Module], seed: int) -> tuple[nn.Sequential, Tensor]:
    """Three layers of three neurons with biases, and 200 points."""
    generator = Generator().manual_seed(seed)
    layers = [
        _layer(
            torch.randn(3, 3, generator=generator, dtype=torch.float64),
            torch.randn(3, generator=generator, dtype=torch.float64),
            activation,
        )
        for _ in range(3)
    ]
    points = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    return nn.Sequential(*(module for layer in layers for module in layer)), points


def _apply(found: object, x: Tensor) -> Tensor:
    value: Tensor = found(x)  # type: ignore[operator]
    return value


CHECKS = (
    unique,
    taylor,
    probability_zero,
    submultiplicative,
    sufficient,
    sufficient_pointwise,
    necessary,
    eigenvectors,
    bias,
    equilibrium,
    depth,
    perron_frobenius,
    soft_orthogonality,
    hamiltonian,
    gershgorin,
)
"""All of them, in the order of the paper."""
