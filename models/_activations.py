"""Activations by their names, so that a YAML file can hold them."""

from torch import nn
from torch.nn.modules import activation as _torch

# What stands in torch's activation module but is no function of one number, or cannot be built from a name alone.
_OTHERS = {
    "GLU",
    "LogSoftmax",
    "MultiheadAttention",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Threshold",
}
_CLASSES = {name: getattr(nn, name) for name in ("Identity", *_torch.__all__) if name not in _OTHERS}
_BY_SHORT_NAME = {name.lower(): cls for name, cls in _CLASSES.items()}


def activation_layer(name: str) -> nn.Module:
    """A new activation layer from its name: the class in `torch.nn`, in any case, with or without underscores.

    Args:
        name: `"ReLU"`, `"relu"`, `"leaky_relu"`, `"Hardtanh"`, ... or `"identity"` for a linear network.

    Raises:
        ValueError: `torch.nn` has no elementwise activation of this name. The message lists the names.

    >>> activation_layer("leaky_relu")
    LeakyReLU(negative_slope=0.01)
    """
    cls = _BY_SHORT_NAME.get(name.lower().replace("_", "")) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"no activation is named {name!r}; choose one of {', '.join(sorted(_CLASSES))}")
    layer: nn.Module = cls()
    return layer
