"""What paper 3's theorem 6 and inequality (10) say of small networks: each example is evaluated, not quoted."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fpstab.experiments.claims import Claim, Finding
from fpstab.jacobian import affine_map
from fpstab.maps import SelfMap
from fpstab.stability.plots import plane

_FAR = 1e6
_PAIRS = 1000

PRODUCT = Claim(
    3, "eq. (10)", "ρ(A_1 ⋯ A_m) ≤ ρ(A_1) ⋯ ρ(A_m).",
    "true of a thousand random pairs of 2 × 2 matrices and of [[0, 2], [0, 0]] with its transpose, to 1e-9 (reproduced); a pair "
    "breaks it (not reproduced)",
)  # fmt: skip
SUFFICIENT = Claim(
    3, "Theorem 6", "ρ ≤ 1 of all weights and activation scalings is sufficient for global stability.",
    "relu(Wx), W = [[2, 2], [−2, −2]], with ρ(W) ≤ 1: orbits from [−6, 6]² stay within 1e6 for 1,000 steps (reproduced), one "
    "does not (not reproduced)",
)  # fmt: skip
NECESSARY = Claim(
    3, "Theorem 6", "ρ(A*(x)) ≤ 1 for all x is necessary for global stability.",
    "f(x) = 2 relu(−x₁) − 0.3 relu(x₁), homogeneous, so that |f(f(x))| ≤ q|x| on ±1 with q < 1 proves it of all x: ρ(A*) ≤ 1 at "
    "all points (reproduced), > 1 at one and q < 1 (not reproduced), q ≥ 1: inconclusive",
)  # fmt: skip
EVERYWHERE = Claim(
    3, "Figure 2", "ρ(A*(x)) ≤ 1 everywhere makes a network asymptotically stable (footnote 4).",
    "a ReLU network with two linear pieces, ρ(A*) ≤ 1 at 48 × 48 points: orbits stay within 1e6 for 1,000 steps (reproduced), "
    "one does not (not reproduced)",
)  # fmt: skip
EIGENVECTORS = Claim(
    3, "§3.3", "Activations change the eigenvalues of a network only, not the eigenvectors.",
    "eigenvectors of ΛW and W for a thousand random W with real eigenvalues and Λ = diag(σ(z)/z), Tanh: parallel to 1e-6 in 90 % "
    "(reproduced), in less than half (not reproduced), else inconclusive",
)  # fmt: skip


def theorem_findings(seed: int = 0) -> tuple[Finding, ...]:
    """Inequality (10), both directions of theorem 6, footnote 4 of Figure 2, and the eigenvectors of §3.3."""
    return _product(seed), _sufficient(), _necessary(), _everywhere(), _eigenvectors(seed)


def _radius(A: Tensor) -> Tensor:
    radius: Tensor = torch.linalg.eigvals(A).abs().amax(-1)
    return radius


def _product(seed: int) -> Finding:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(2, _PAIRS, 2, 2, generator=generator, dtype=torch.float64)
    nilpotent = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    A, B = torch.cat((A, nilpotent[None])), torch.cat((B, nilpotent.T[None]))
    broken = _radius(A @ B) > _radius(A) * _radius(B) + 1e-9
    said = (
        f"It breaks for {int(broken.sum())} of {len(A)} pairs; {float(_radius(nilpotent)):g} · {float(_radius(nilpotent.T)):g} "
        f"against {float(_radius(nilpotent @ nilpotent.T)):g} for the nilpotent one."
    )
    return PRODUCT.found(
        "not reproduced" if bool(broken.any()) else "reproduced", said, float(broken.sum()), None, len(A)
    )


def _sufficient() -> Finding:
    W = torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
    largest = _farthest(_network([W], activated=True))
    rho = float(_radius(W))
    said = f"ρ(W) = {rho:.2g}, |σ(z)/z| ≤ 1; the farthest orbit reaches {largest:.3g}."
    return SUFFICIENT.found("not reproduced" if rho <= 1 and largest > _FAR else "reproduced", said, largest)


def _necessary() -> Finding:
    split = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    net = _network([split, torch.tensor([[-0.3, 2.0], [0.0, 0.0]], dtype=torch.float64)])
    rho = float(affine_map(SelfMap(net, torch.zeros(1, 2)), plane(48)).spectral_radius().max())
    ends = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        q = float(net(net(ends))[:, 0].abs().max())
    said = f"max ρ(A*) = {rho:.3g}, and |f(f(x))| ≤ {q:.3g} |x₁| for all x."
    verdict = "inconclusive" if q >= 1 else "not reproduced" if rho > 1 else "reproduced"
    return NECESSARY.found(verdict, said, rho)  # type: ignore[arg-type]


def _everywhere() -> Finding:
    # x₁⁺ = p x₁ + x₂, x₂⁺ = q x₁ with q = −0.9, p = −1.8 for x₁ > 0 and −0.5 below: ρ = √0.9 in both halves
    split = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    joined = torch.tensor([[-1.8, 0.5, 1.0, -1.0], [-0.9, 0.9, 0.0, 0.0]], dtype=torch.float64)
    net = _network([split, joined])
    rho = float(affine_map(SelfMap(net, torch.zeros(1, 2)), plane(48)).spectral_radius().max())
    largest = _farthest(net)
    said = f"max ρ(A*) = {rho:.4g}; the farthest orbit reaches {largest:.3g}."
    return EVERYWHERE.found("not reproduced" if rho <= 1 and largest > _FAR else "reproduced", said, largest)


def _eigenvectors(seed: int) -> Finding:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(_PAIRS, 2, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(_PAIRS, 2, generator=generator, dtype=torch.float64)
    real = (W[:, 0, 0] - W[:, 1, 1]) ** 2 / 4 + W[:, 0, 1] * W[:, 1, 0] > 0
    W, z = W[real], z[real]
    scaled = (z.tanh() / z)[:, :, None] * W
    same = torch.stack([_parallel(W, scaled, k) for k in (0, 1)]).all(0)
    share = float(same.double().mean())
    verdict = "reproduced" if share >= 0.9 else "not reproduced" if share < 0.5 else "inconclusive"
    said = f"The eigenvectors are kept for {share:.1%} of {len(W)} matrices."
    return EIGENVECTORS.found(verdict, said, share, math.sqrt(share * (1 - share) / len(W)), len(W))  # type: ignore[arg-type]


def _parallel(A: Tensor, B: Tensor, k: int) -> Tensor:
    """Whether the k-th eigenvector of A is one of B `[P]`."""
    v = torch.linalg.eig(A)[1].real[:, :, k]
    w = (B @ v[:, :, None])[:, :, 0]
    same: Tensor = (v[:, 0] * w[:, 1] - v[:, 1] * w[:, 0]).abs() <= 1e-6 * v.norm(dim=1) * w.norm(dim=1)
    return same


def _network(weights: Sequence[Tensor], *, activated: bool = False) -> nn.Sequential:
    """ReLU between linear maps without biases, and behind the last one if `activated`."""
    parts: list[nn.Module] = []
    for W in weights:
        linear = nn.Linear(W.shape[1], W.shape[0], bias=False, device="meta", dtype=torch.float64)  # draws nothing
        linear.weight = nn.Parameter(W.clone())
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*(parts if activated else parts[:-1]))


def _farthest(net: nn.Module) -> float:
    """The largest norm on orbits from a grid on [−6, 6]² in 1,000 steps, or the first above 1e6."""
    x, largest = plane(12), 0.0
    with torch.no_grad():
        for _ in range(1000):
            x = net(x)
            largest = max(largest, float(x.norm(dim=1).max()))
            if largest > _FAR:
                break
    return largest
