"""Additions to the loss of an equilibrium model: the Jacobian's size, and the iterates on the way."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fpstab.equilibrium.configs import check_count
from fpstab.equilibrium.maps import refuse_coupling
from fpstab.equilibrium.states import Layout, StateLike, check_args


def jacobian_penalty(
    f: Callable[..., Any],
    z: StateLike,
    args: Sequence[object] = (),
    *,
    generator: torch.Generator,
    probes: int = 1,
) -> Tensor:
    """Estimate ‖J‖²_F/d, the mean over the batch, J = ∂f/∂z (Bai, Koltun and Kolter 2021); for the loss.

    Hutchinson's estimate from random signs v: the mean of ‖Jᵀv‖²/d is ‖J‖²_F/d. Differentiable, also through z if it
    is the output of a `FixedPointLayer`.

    Args:
        f: The map.
        z: Where, `[B, ...]` or a tuple of such tensors.
        args: Further arguments of f; tensors are `[B, ...]`.
        generator: Draws the probes, on the device of z.
        probes: How many; each costs a product with the Jacobian.

    Raises:
        ValueError: If `probes` is less than 1, or a shape makes no sense.

    >>> z = torch.zeros(1, 4, dtype=torch.float64)
    >>> jacobian_penalty(lambda z: 3 * z, z, generator=torch.Generator().manual_seed(0))
    tensor(9., dtype=torch.float64)
    """
    check_count("probes", probes)
    refuse_coupling(f)
    layout = Layout.of(z)
    rows = layout.pack(z)
    check_args(args, len(rows))
    with torch.enable_grad():
        rows = rows if rows.requires_grad else rows.detach().requires_grad_()
        state = f(layout.unpack(rows), *args)
        layout.check(state, len(rows))
        value = layout.pack(state)
        total = rows.new_zeros(())
        for _ in range(probes):
            signs = torch.randint(0, 2, rows.shape, generator=generator, device=rows.device, dtype=rows.dtype)
            (product,) = torch.autograd.grad(value, rows, 2 * signs - 1, create_graph=True)
            total = total + product.square().sum()
    return total / (probes * rows.numel())


def corrected_loss(losses: Sequence[Tensor], decay: float = 0.8) -> Tensor:
    """Fixed-point correction (Bai et al. 2022): the losses on the way, the earlier the less: Σ decay^(K−k) ℓ_k.

    Args:
        losses: Of the states of `FixedPointLayer.trajectory`, the equilibrium's last.
        decay: Between 0 and 1.

    Raises:
        ValueError: If there is no loss, or `decay` is not between 0 and 1.

    >>> corrected_loss([torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0)], decay=0.5)
    tensor(1.7500)
    """
    if not losses:
        raise ValueError("losses is empty: expected one for each state of a trajectory.")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay={decay}: expected a number between 0 and 1.")
    last = len(losses) - 1
    return torch.stack([decay ** (last - k) * loss for k, loss in enumerate(losses)]).sum()
