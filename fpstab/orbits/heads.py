"""The head g of a network, and its Lipschitz constant."""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from fpstab.lipschitz import LipschitzBound, head_by_lipsdp, head_lipschitz, lipschitz_bound
from fpstab.maps import part_of

Lip = Literal["exact", "cvxpy"]


def head_of(network: nn.Module, path: str | None) -> nn.Module:
    """The head of a network: the part at a dotted path, or the last of its children that has parameters.

    Raises:
        ValueError: If there is none.
    """
    head = part_of(network, path) if path else _last_child(network)
    if not isinstance(head, nn.Module):
        raise ValueError(f"{path!r} is a {type(head).__name__}: expected a module.")
    return head


def head_constants(head: nn.Module, lip: Lip) -> dict[str, LipschitzBound]:
    """Lip(g) of a head, to the logits and to the probabilities.

    LipSDP-Neuron behind an identity layer as wide as the state, as paper 5 has it, is out of reach of a conic solver. Its
    optimum for W and for RᵀQᵀ = W (Q with orthonormal columns) is max|slope|·σ_max, and that of Rᵀ; so the program is
    solved for Rᵀ, which has as many neurons as there are classes.

    Args:
        head: Linear, or one that `fpstab.lipschitz` can bound.
        lip: `"exact"` or `"cvxpy"`.

    Returns:
        A `fpstab.lipschitz.LipschitzBound` each for `"logits"` and `"probabilities"`; that of a linear head through cvxpy
        is not called certified.

    Raises:
        ValueError: If the head has a layer that is not supported, or is too large for the solver.
    """
    if not isinstance(head, nn.Linear):
        backend = "native" if lip == "exact" else "cvxpy"
        return {
            "logits": lipschitz_bound(head, backend=backend, throw=False),
            "probabilities": lipschitz_bound(head, head="softmax", backend=backend, throw=False),
        }
    weight = head.weight.detach()
    if lip == "exact":
        return {"logits": head_lipschitz(weight), "probabilities": head_lipschitz(weight, softmax=True)}
    reduced = torch.linalg.qr(weight.double().cpu().T, mode="r").R.T
    # the certificate is one of Rᵀ, and knows nothing of the rounding that R was made with
    return {
        "logits": replace(head_by_lipsdp(reduced, throw=False), certified=False),
        "probabilities": replace(head_by_lipsdp(reduced, head="softmax", throw=False), certified=False),
    }


def _last_child(network: nn.Module) -> nn.Module:
    """The last of the children that has parameters: in most networks the head."""
    children = [child for child in network.children() if any(True for _ in child.parameters())]
    if not children:
        raise ValueError(
            f"{type(network).__name__} has no part with parameters: name its head, lip_head=…, or lip=None."
        )
    return children[-1]
