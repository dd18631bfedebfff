"""Parametrisations that keep a weight in its family while it trains, and how far a weight has left it.

An initialisation chooses a family; the optimiser does not know it, and Adam leaves it within tens of steps. Registered
by `torch.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())`, these keep it.
"""

import math

import torch
from torch import Tensor, nn


class Symmetric(nn.Module):
    """W = (X + Xᵀ)/2 of a free square matrix X; symmetric to the last bit.

    Assigning a matrix to the weight keeps its symmetric part, the nearest symmetric matrix: a symmetric one unchanged,
    half the variance of one with independent entries. So initialise by `goe_` before or after registering.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all())
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """The symmetric part of `x` `[N, N]`."""
        return (x + _transpose_of_square(x, "Symmetric")) / 2

    def right_inverse(self, w: Tensor) -> Tensor:
        """The free matrix behind a weight `[N, N]`: its symmetric part."""
        return self.forward(w)


class Antisymmetric(nn.Module):
    """W = (X − Xᵀ)/2 of a free square matrix X; antisymmetric to the last bit.

    Assigning a matrix to the weight keeps its antisymmetric part, the nearest antisymmetric matrix.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", Antisymmetric())
    >>> bool((layer.weight == -layer.weight.T).all())
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """The antisymmetric part of `x` `[N, N]`."""
        return (x - _transpose_of_square(x, "Antisymmetric")) / 2

    def right_inverse(self, w: Tensor) -> Tensor:
        """The free matrix behind a weight `[N, N]`: its antisymmetric part."""
        return self.forward(w)


class Orthogonal(nn.Module):
    """W = s·C(X)·Q: a fixed (semi-)orthogonal Q turned by the Cayley transform C of a free matrix, times a scale s = √V.

    C(X) = (I − A)⁻¹(I + A) with A the antisymmetric part of X/2; it is orthogonal for every X, and X = 0 is W = s·Q.
    Rectangles are turned on their longer side. Assigning a matrix to the weight takes the nearest multiple of a
    (semi-)orthogonal matrix (its polar factor) for Q, sets X to 0 and s to the fitting scale; a member of the family is
    unchanged. `torch.nn.utils.parametrizations.orthogonal` has no scale.

    Args:
        rows: Rows of the weight.
        columns: Columns of the weight.
        train_scale: Whether s trains too; otherwise √V stays what it was when the weight was assigned.
        dtype: Of Q and s.
        device: Of Q and s.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", Orthogonal(3, 3))
    >>> float(orthogonality_defect(layer.weight)) < 1e-6
    True
    """

    base: Tensor
    scale: Tensor

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        train_scale: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if rows < 1 or columns < 1:
            raise ValueError(f"Orthogonal: a weight {rows}x{columns}; expected at least one row and one column.")
        self.register_buffer("base", torch.eye(rows, columns, dtype=dtype, device=device))
        scale = torch.ones((), dtype=dtype, device=device)
        if train_scale:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """The weight `[rows, columns]` of a free matrix `x`, `[n, n]` with n the longer side."""
        a = (x - x.T) / 4
        eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
        turn = torch.linalg.solve(eye - a, eye + a)
        rows, columns = self.base.shape
        turned: Tensor = turn @ self.base if rows >= columns else self.base @ turn
        return self.scale * turned

    def right_inverse(self, w: Tensor) -> Tensor:
        """Take a weight `[rows, columns]` for Q and s; returns the free matrix, 0."""
        if w.shape != self.base.shape:
            raise ValueError(
                f"Orthogonal: a weight of shape {tuple(w.shape)}, but this parametrisation is for "
                f"{tuple(self.base.shape)}."
            )
        u, s, vh = torch.linalg.svd(w.detach().double(), full_matrices=False)
        with torch.no_grad():
            self.base.copy_(u @ vh)
            self.scale.copy_(s.mean())  # of all multiples of u vh the nearest to w in Frobenius norm
        longer = max(w.shape)
        return torch.zeros(longer, longer, dtype=w.dtype, device=w.device)


def symmetry_defect(weight: Tensor) -> float:
    """How far a square matrix is from symmetric: ‖(W − Wᵀ)/2‖_F / ‖W‖_F, from 0 (symmetric) to 1 (antisymmetric).

    Independent entries give 1/√2, the elliptic ensemble √((1 − τ)/2); the zero matrix is symmetric.

    Args:
        weight: `[N, N]`; computed in float64.

    Raises:
        ValueError: If it is not a square matrix.

    >>> symmetry_defect(torch.tensor([[1.0, 2.0], [2.0, 0.0]])), symmetry_defect(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
    (0.0, 1.0)
    """
    w = weight.detach().double()
    if w.dim() != 2:
        raise ValueError(f"symmetry_defect: a tensor of shape {tuple(w.shape)}; expected a square matrix [N, N].")
    odd = (w - _transpose_of_square(w, "symmetry_defect")) / 2
    norm = float(torch.linalg.matrix_norm(w))
    return float(torch.linalg.matrix_norm(odd)) / norm if norm else 0.0


def orthogonality_defect(weight: Tensor) -> float:
    """How far a matrix is from a multiple of a (semi-)orthogonal one: the spread of its squared singular values.

    Their standard deviation over their mean, ‖WᵀW/V − I‖_F/√N of a square matrix: 0 for √V times an orthogonal matrix,
    1 for a large square one of independent or GOE entries; the zero matrix gives 0.

    Args:
        weight: `[p, n]`; computed in float64.

    Raises:
        ValueError: If it is not a matrix.

    >>> orthogonality_defect(3 * torch.eye(2)), orthogonality_defect(torch.diag(torch.tensor([3.0, 1.0])))
    (0.0, 0.8)
    """
    w = weight.detach().double()
    if w.dim() != 2 or not w.numel():
        raise ValueError(f"orthogonality_defect: a tensor of shape {tuple(w.shape)}; expected a matrix.")
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    mean = float(gram.diagonal().mean())
    gram.diagonal().sub_(mean)
    return float(torch.linalg.matrix_norm(gram)) / math.sqrt(len(gram)) / mean if mean else 0.0


def _transpose_of_square(x: Tensor, name: str) -> Tensor:
    if x.dim() < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{name}: a tensor of shape {tuple(x.shape)}; expected a square matrix [N, N].")
    return x.mT
