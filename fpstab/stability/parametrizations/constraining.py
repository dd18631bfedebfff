"""A structure on every linear layer of a network, and what is then promised of it."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from fpstab.stability.parametrizations.certificates import NormCertificate

Net = TypeVar("Net", bound=nn.Module)


def constrain(net: Net, structure: nn.Module) -> Net:
    """Give the weight of every `nn.Linear` of a network a structure, in place; each layer gets a copy.

    For one layer `torch.nn.utils.parametrize.register_parametrization(layer, "weight", structure)` does the same.
    Make the optimizer afterwards: the parameters are new ones.

    Args:
        net: A network, or a linear layer.
        structure: One of this package's parametrisations.

    Returns:
        The network.

    Raises:
        ValueError: It has no linear layer, a weight has a parametrisation already, or does not go with the structure
            (its name is told); the network is then as it was.

    >>> from fpstab.stability.parametrizations import BoundedSVD
    >>> net = constrain(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), BoundedSVD(0.0, 0.9))
    >>> [(name, certificate.bound) for name, certificate in certificates(net).items()]
    [('0.weight', 0.9), ('2.weight', 0.9)]
    """
    layers = {name: part for name, part in net.named_modules() if isinstance(part, nn.Linear)}
    if not layers:
        raise ValueError(f"constrain: no nn.Linear in {type(net).__name__}; structures are for linear layers.")
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"constrain: the weight of the layer {name!r} has a parametrisation already.")
        try:
            copy.deepcopy(structure).right_inverse(layer.weight)  # type: ignore[operator]
        except ValueError as error:
            raise ValueError(f"constrain: the layer {name!r}: {error}") from error
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", copy.deepcopy(structure))
    return net


def certificates(net: nn.Module) -> dict[str, NormCertificate]:
    """What the structures in a network promise of its tensors, by their names (`"encoder.layers.0.weight"`).

    Of several parametrisations of a tensor the last one counts.
    """
    found = {}
    for name, part in net.named_modules():
        if not parametrize.is_parametrized(part):
            continue
        for tensor, chain in part.parametrizations.items():
            certificate = getattr(chain[-1], "certificate", None)
            if certificate is not None:
                found[f"{name}.{tensor}" if name else tensor] = certificate()
    return found
