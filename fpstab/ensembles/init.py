"""Initialise a weight in place from a family of random matrices, in the manner of `torch.nn.init`.

A family is scaled by `sqrt_v` = √V, where V = tr WᵀW/N is the mean squared singular value of a square N×N weight
(paper 4, §2). Every family of the same √V maps a random vector to one of the same expected length; what differs is
what happens when the same weight is applied again and again, as in a deep-equilibrium model.

All numbers are drawn and computed in float64 on the CPU (on the generator's device, if one is given) and then rounded
to the weight's type, so that one seed gives one matrix whatever the weight's type and device. Without a generator,
PyTorch's default one is used, as by `torch.nn.init`: `seed_everything` governs it.
"""

import math
from typing import Literal

import torch
from torch import Generator, Tensor

Scale = Literal["1/fan_in", "1/fan_out", "1/sqrt_fan_in"]
"""How `normal_` and `cauchy_` scale the entries of a weight."""

EigenvalueLaw = Literal["disc", "circle"]
"""The laws of eigenvalues that `haar_normal_` draws from."""


def random_(weight: Tensor, sqrt_v: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with independent Gaussian entries of variance V/fan_in: the family "random", or iid, of paper 4.

    Args:
        weight: `[out, in, ...]`; fan_in is the number of entries of a row.
        sqrt_v: √V.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it has fewer than two dimensions or no entries, or √V is negative or not finite.

    >>> w = random_(torch.empty(400, 400), 0.5, generator=torch.Generator().manual_seed(0))
    >>> round(float(w.square().sum() / 400), 2)  # V
    0.25
    """
    _, columns = _matrix_shape(weight, "random_")
    _check_sqrt_v(sqrt_v)
    return _fill(weight, sqrt_v / math.sqrt(columns) * _normal(tuple(weight.shape), generator))


def orthogonal_(weight: Tensor, sqrt_v: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with √V times a Haar-distributed orthogonal matrix (paper 4, §2.1.2).

    The matrix is the Q of the QR decomposition of a Gaussian matrix with the signs of R's diagonal moved into Q;
    without that the law is not Haar's. Rectangles become semi-orthogonal, √V times a matrix with orthonormal rows or
    columns, whichever are fewer.

    Args:
        weight: `[out, in, ...]`, seen as a matrix of `out` rows.
        sqrt_v: √V.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it has fewer than two dimensions or no entries, or √V is negative or not finite.

    >>> w = orthogonal_(torch.empty(3, 3, dtype=torch.float64), 2.0, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(w.T @ w, 4 * torch.eye(3, dtype=torch.float64))
    True
    """
    rows, columns = _matrix_shape(weight, "orthogonal_")
    _check_sqrt_v(sqrt_v)
    q = haar(max(rows, columns), min(rows, columns), generator)
    return _fill(weight, sqrt_v * (q if rows >= columns else q.T))


def goe_(weight: Tensor, sqrt_v: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with a matrix of the Gaussian orthogonal ensemble (paper 4, §2.1.2).

    Symmetric; variance V/N off the diagonal and 2V/N on it. The eigenvalues fill [−2√V, 2√V] by the semicircle law, so
    that plain iteration of a linear map converges for √V < 1/2 only.

    Args:
        weight: `[N, N]`.
        sqrt_v: √V.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it is not a square matrix, or √V is negative or not finite.

    >>> w = goe_(torch.empty(50, 50), 0.4, generator=torch.Generator().manual_seed(0))
    >>> bool((w == w.T).all())
    True
    """
    n = _square(weight, "goe_", "symmetric")
    _check_sqrt_v(sqrt_v)
    return _fill(weight, sqrt_v * _symmetric(n, generator))


def antisymmetric_(weight: Tensor, sqrt_v: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with an antisymmetric Gaussian matrix, W = −Wᵀ, of variance V/N off the diagonal.

    The eigenvalues are imaginary, within ±2√V i. (Paper 4 names the family as one to study.)

    Args:
        weight: `[N, N]`.
        sqrt_v: √V.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it is not a square matrix, or √V is negative or not finite.

    >>> w = antisymmetric_(torch.empty(50, 50), generator=torch.Generator().manual_seed(0))
    >>> bool((w == -w.T).all())
    True
    """
    n = _square(weight, "antisymmetric_", "antisymmetric")
    _check_sqrt_v(sqrt_v)
    return _fill(weight, sqrt_v * _antisymmetric(n, generator))


def elliptic_(weight: Tensor, tau: float, sqrt_v: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with a matrix of the elliptic ensemble: Gaussian, E W_ij² = V/N and E W_ij W_ji = τV/N off the diagonal.

    τ = 1 is the Gaussian orthogonal ensemble, 0 independent entries, −1 the antisymmetric ensemble. The eigenvalues
    fill an ellipse with semi-axes (1 ± τ)√V (Sommers et al. 1988).

    Args:
        weight: `[N, N]`.
        tau: τ, from −1 to 1.
        sqrt_v: √V.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it is not a square matrix, τ is not within [−1, 1], or √V is negative or not finite.

    >>> w = elliptic_(torch.empty(400, 400), -0.5, generator=torch.Generator().manual_seed(0))
    >>> round(float((w * w.T).sum() / w.square().sum()), 1)
    -0.5
    """
    n = _square(weight, "elliptic_", "elliptic")
    _check_sqrt_v(sqrt_v)
    if not -1 <= tau <= 1:
        raise ValueError(f"elliptic_: tau is {tau}; expected a number from -1 (antisymmetric) to 1 (symmetric).")
    even, odd = math.sqrt((1 + tau) / 2), math.sqrt((1 - tau) / 2)
    return _fill(weight, sqrt_v * (even * _symmetric(n, generator) + odd * _antisymmetric(n, generator)))


def haar_normal_(
    weight: Tensor,
    sqrt_v: float = 1.0,
    eigenvalues: EigenvalueLaw | Tensor = "disc",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with a normal matrix, WᵀW = WWᵀ, of given eigenvalues and Haar-distributed eigenvectors.

    W = √V·Q B Qᵀ with Q Haar-distributed and B block-diagonal: a pair r e^{±iθ} of eigenvalues is a rotation by θ
    scaled by r. (Paper 4, §5.3, names the family as one to study.)

    Args:
        weight: `[N, N]`.
        sqrt_v: Factor of the eigenvalues; it is √V for laws with E|λ|² = 1, as both named laws are.
        eigenvalues: `"disc"`: independent, uniform in the disc of radius √2; `"circle"`: uniform on the unit circle;
            or a tensor: of N real numbers (W is then symmetric), or of ⌈N/2⌉ complex numbers, one of each conjugate
            pair, of which the last must be real if N is odd.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If it is not a square matrix, √V is negative or not finite, or the eigenvalues are not as above.

    >>> w = haar_normal_(torch.empty(4, 4, dtype=torch.float64), eigenvalues=torch.tensor([1.0, 2.0, 3.0, 4.0]),
    ...                  generator=torch.Generator().manual_seed(0))
    >>> [round(value, 6) for value in torch.linalg.eigvalsh(w).tolist()]
    [1.0, 2.0, 3.0, 4.0]
    """
    n = _square(weight, "haar_normal_", "normal")
    _check_sqrt_v(sqrt_v)
    q = haar(n, n, generator)
    drawn = eigenvalues if isinstance(eigenvalues, Tensor) else _draw_eigenvalues(eigenvalues, n, generator)
    drawn = drawn.detach().to(q.device)
    if not torch.isfinite(drawn).all():
        raise ValueError("haar_normal_: the eigenvalues are not all finite.")
    if not drawn.is_complex():
        if drawn.shape != (n,):
            raise ValueError(f"haar_normal_: real eigenvalues of shape {tuple(drawn.shape)}; expected ({n},).")
        w = (q * drawn.double()) @ q.T
        return _fill(weight, sqrt_v * (w + w.T) / 2)  # symmetric to the last bit
    if drawn.shape != ((n + 1) // 2,):
        raise ValueError(
            f"haar_normal_: complex eigenvalues of shape {tuple(drawn.shape)}; expected ({(n + 1) // 2},), "
            f"one of each conjugate pair of a {n}x{n} matrix."
        )
    if n % 2 and drawn[-1].imag != 0:
        raise ValueError(f"haar_normal_: with N = {n} the last eigenvalue has no partner and must be real.")
    return _fill(weight, sqrt_v * (q @ _blocks(drawn.to(torch.complex128), n) @ q.T))


def normal_(
    weight: Tensor,
    scale: Scale | float = "1/fan_in",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with independent Gaussian entries whose *standard deviation* is the scale (papers 1, §IV, and 2, §III).

    With the papers' scale 1/fan-in as a variance instead, their statement that Gaussian networks have one fixed point
    fails.

    Args:
        weight: `[out, in, ...]`, or a bias `[out]` with a number for a scale.
        scale: `"1/fan_in"` (the papers'), `"1/fan_out"`, `"1/sqrt_fan_in"`, or a number.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If the scale is unknown, negative or not finite, or needs a fan that the tensor has not.

    >>> w = normal_(torch.empty(100, 200), generator=torch.Generator().manual_seed(0))
    >>> round(200 * float(w.std()), 1)
    1.0
    """
    factor = _factor(weight, scale, "normal_")
    return _fill(weight, factor * _normal(tuple(weight.shape), generator))


def cauchy_(
    weight: Tensor,
    scale: Scale | float = "1/fan_in",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with independent Cauchy entries, centred, of the given scale (half the distance of the quartiles).

    The papers' model of trained networks (papers 1, §IV, and 2, §III).

    Args:
        weight: `[out, in, ...]`, or a bias `[out]` with a number for a scale.
        scale: `"1/fan_in"` (the papers'), `"1/fan_out"`, `"1/sqrt_fan_in"`, or a number.
        generator: Source of randomness.

    Returns:
        The weight.

    Raises:
        TypeError: If the weight is not a tensor of real floating-point numbers.
        ValueError: If the scale is unknown, negative or not finite, or needs a fan that the tensor has not.

    >>> w = cauchy_(torch.empty(100, 200), generator=torch.Generator().manual_seed(0))
    >>> round(200 * float(w.abs().median()), 1)
    1.0
    """
    factor = _factor(weight, scale, "cauchy_")
    draws = torch.empty(tuple(weight.shape), dtype=torch.float64, device=_device(generator))
    return _fill(weight, factor * draws.cauchy_(generator=generator))


def haar(n: int, k: int, generator: Generator | None = None) -> Tensor:
    """The first k columns of a Haar-distributed orthogonal matrix, float64 `[n, k]`.

    Args:
        n: Rows.
        k: Columns, at most n.
        generator: Source of randomness; the result lies on its device.
    """
    q, r = torch.linalg.qr(_normal((n, k), generator))
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q)
    columns: Tensor = q * signs
    return columns


def _symmetric(n: int, generator: Generator | None) -> Tensor:
    a = _normal((n, n), generator)
    return (a + a.T) / math.sqrt(2 * n)


def _antisymmetric(n: int, generator: Generator | None) -> Tensor:
    a = _normal((n, n), generator)
    return (a - a.T) / math.sqrt(2 * n)


def _draw_eigenvalues(law: str, n: int, generator: Generator | None) -> Tensor:
    """One of each conjugate pair; the last is real if n is odd, with the modulus of the law."""
    if law not in ("disc", "circle"):
        raise ValueError(f"haar_normal_: no law of eigenvalues is called {law!r}; choose 'disc', 'circle' or a tensor.")
    u = torch.rand((2, (n + 1) // 2), generator=generator, dtype=torch.float64, device=_device(generator))
    radius = (2 * u[0]).sqrt() if law == "disc" else torch.ones_like(u[0])
    values = torch.polar(radius, math.pi * u[1])
    if n % 2:
        values[-1] = radius[-1] * (1.0 if u[1, -1] < 0.5 else -1.0)
    return values


def _blocks(pairs: Tensor, n: int) -> Tensor:
    """The real block-diagonal matrix with these eigenvalues and their conjugates, float64 `[n, n]`."""
    b = torch.zeros(n, n, dtype=torch.float64, device=pairs.device)
    first = torch.arange(0, n, 2, device=pairs.device)
    b[first, first] = pairs.real
    first, pairs = first[: n // 2], pairs[: n // 2]
    b[first + 1, first + 1] = pairs.real
    b[first, first + 1], b[first + 1, first] = -pairs.imag, pairs.imag
    return b


def _normal(shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=_device(generator))


def _device(generator: Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _fill(weight: Tensor, values: Tensor) -> Tensor:
    with torch.no_grad():
        return weight.copy_(values.reshape(weight.shape))


def _check_tensor(weight: Tensor, name: str) -> None:
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{name}: got {kind}; expected a tensor of real floating-point numbers.")


def _check_sqrt_v(sqrt_v: float) -> None:
    if not 0 <= sqrt_v < math.inf:
        raise ValueError(f"sqrt_v is {sqrt_v}; expected a finite number that is not negative.")


def _matrix_shape(weight: Tensor, name: str) -> tuple[int, int]:
    _check_tensor(weight, name)
    if weight.dim() < 2 or not weight.numel():
        raise ValueError(
            f"{name}: a weight of shape {tuple(weight.shape)}; expected at least two dimensions, [out, in, ...], "
            "and some entries."
        )
    return weight.shape[0], weight.numel() // weight.shape[0]


def _square(weight: Tensor, name: str, kind: str) -> int:
    rows, columns = _matrix_shape(weight, name)
    if weight.dim() != 2 or rows != columns:
        raise ValueError(
            f"{name}: a weight of shape {tuple(weight.shape)}; {kind} matrices are square, [N, N]. "
            "For rectangles use random_ or orthogonal_."
        )
    return rows


def _factor(weight: Tensor, scale: str | float, name: str) -> float:
    _check_tensor(weight, name)
    if isinstance(scale, str):
        if scale not in ("1/fan_in", "1/fan_out", "1/sqrt_fan_in"):
            raise ValueError(
                f"{name}: no scale is called {scale!r}; choose '1/fan_in', '1/fan_out', '1/sqrt_fan_in' or a number."
            )
        if weight.dim() < 2 or not weight.numel():
            raise ValueError(
                f"{name}: the scale {scale!r} needs a weight [out, in, ...] with entries, got shape "
                f"{tuple(weight.shape)}; for a bias give the number."
            )
        receptive = math.prod(weight.shape[2:])
        fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
        return {"1/fan_in": 1 / fan_in, "1/fan_out": 1 / fan_out, "1/sqrt_fan_in": 1 / math.sqrt(fan_in)}[scale]
    if not 0 <= scale < math.inf:
        raise ValueError(f"{name}: the scale is {scale}; expected a finite number that is not negative.")
    return float(scale)
