"""The activations with parameters that torch has not, as functions that torch's own tools see as one operation.

Each asks `torch.overrides` first, as the functions of `torch.nn.functional` do: what follows a network's operations (a
`TorchFunctionMode`, `torch.fx`) then meets `blu`, not the square root and the product it is made of.
"""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def soft_exponential(input: Tensor, alpha: Tensor) -> Tensor:  # noqa: A002
    """See `SoftExponential`; `alpha` has one value. `nan` where the logarithm does not exist."""
    if has_torch_function((input, alpha)):
        return handle_torch_function(soft_exponential, (input, alpha), input, alpha)
    if bool((alpha > 0).all()):
        return torch.expm1(alpha * input) / alpha + alpha
    if bool((alpha < 0).all()):
        return -torch.log1p(-alpha * (input + alpha)) / alpha
    if alpha.requires_grad:  # the derivative in α, without which it could not leave 0
        return input + alpha * (1 + input * input / 2)
    return input + alpha  # 0, or nan


def blu(input: Tensor, beta: Tensor) -> Tensor:  # noqa: A002
    """See `BLU`; `beta` has one value."""
    if has_torch_function((input, beta)):
        return handle_torch_function(blu, (input, beta), input, beta)
    root = torch.hypot(input, torch.ones_like(input))
    # √(z² + 1) − 1 without cancellation near 0, nor a square that overflows
    return beta * (input * (input / (root + 1))) + input


def aplu(input: Tensor, a: Tensor, b: Tensor) -> Tensor:  # noqa: A002
    """See `APLU`; `a` and `b` are `[C, S]`, C = 1 or the size of the input's dimension 1.

    Raises:
        ValueError: If the input has another number of channels.
    """
    if has_torch_function((input, a, b)):
        return handle_torch_function(aplu, (input, a, b), input, a, b)
    channels = a.shape[0]
    if channels > 1 and (input.ndim < 2 or input.shape[1] != channels):
        raise ValueError(f"APLU has parameters for {channels} channels; got an input of shape {list(input.shape)}.")
    after = (1,) * max(input.ndim - 2, 0) if channels > 1 else ()
    value = torch.relu(input)
    for slope, hinge in zip(a.unbind(1), b.unbind(1), strict=True):
        value = value + slope.reshape(-1, *after) * torch.relu(hinge.reshape(-1, *after) - input)
    return value


def pelu(input: Tensor, a: Tensor, b: Tensor) -> Tensor:  # noqa: A002
    """See `PELU`; `a` and `b` have one value each."""
    if has_torch_function((input, a, b)):
        return handle_torch_function(pelu, (input, a, b), input, a, b)
    # clamped: the exponential of a large z would be inf, and 0·inf in the gradient nan
    return a * (torch.relu(input) / b + torch.expm1(input.clamp(max=0) / b))
