"""The distributions that random networks are drawn from, light-tailed and heavy-tailed, by name."""

import math
import re
from collections.abc import Callable

import torch
from torch import Generator, Tensor

Draw = Callable[[int, Generator], Tensor]
"""Draws so many independent numbers of scale 1, float64 `[size]`, on the generator's device."""

_WITH_PARAMETER = re.compile(r"(student-t|stable)\(\s*([0-9.eE+-]+)\s*\)")


def distribution_of(name: str) -> Draw:
    """How to draw from a symmetric distribution of scale 1.

    Args:
        name: `"normal"` (standard deviation 1), `"uniform"` (standard deviation 1, on ±√3), `"cauchy"` (quartiles ±1),
            `"student-t(ν)"` for any ν > 0, or `"stable(α)"`, 0 < α ≤ 2, with characteristic function exp(−|t|^α): of
            variance 2 for α = 2, Cauchy for α = 1.

    Raises:
        ValueError: If no distribution has this name, or its parameter is out of range.

    >>> draws = distribution_of("stable(1.5)")(4, torch.Generator().manual_seed(0))
    >>> draws.shape, draws.dtype
    (torch.Size([4]), torch.float64)
    """
    plain: dict[str, Draw] = {"normal": _normal, "uniform": _centred_uniform, "cauchy": _cauchy}
    if isinstance(name, str):
        if name in plain:
            return plain[name]
        found = _WITH_PARAMETER.fullmatch(name)
        if found:
            family, parameter = found[1], _number(name, found[2])
            if family == "student-t" and 0 < parameter < math.inf:
                return lambda size, generator: _student_t(size, generator, parameter)
            if family == "stable" and 0 < parameter <= 2:
                return lambda size, generator: _stable(size, generator, parameter)
            expected = "ν > 0" if family == "student-t" else "0 < α ≤ 2"
            raise ValueError(f"distribution {name!r}: the parameter is {parameter:g}; expected {expected}.")
    raise ValueError(
        f"No distribution is called {name!r}; choose 'normal', 'uniform', 'cauchy', 'student-t(3)' or 'stable(1.5)', "
        "the last two with any parameter in their range."
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"distribution {name!r}: {text!r} is no number.") from None


def _normal(size: int, generator: Generator) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device)


def _cauchy(size: int, generator: Generator) -> Tensor:
    return torch.empty(size, dtype=torch.float64, device=generator.device).cauchy_(generator=generator)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """In (0, 1], so that logarithms and powers are finite."""
    return 1 - torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _centred_uniform(size: int, generator: Generator) -> Tensor:
    return math.sqrt(3) * (2 * _uniform((size,), generator) - 1)


def _student_t(size: int, generator: Generator, nu: float) -> Tensor:
    """The polar method of Bailey, Polar generation of random variates with the t-distribution, 1994."""
    radius, angle = _uniform((2, size), generator)
    length: Tensor = (nu * torch.expm1(-2 / nu * radius.log())).sqrt()
    return length * torch.cos(2 * math.pi * angle)


def _stable(size: int, generator: Generator, alpha: float) -> Tensor:
    """The method of Chambers, Mallows and Stuck, A method for simulating stable random variables, 1976."""
    uniform, second = _uniform((2, size), generator)
    angle, exponential = math.pi * (uniform - 0.5), -second.log()
    first: Tensor = torch.sin(alpha * angle) / angle.cos() ** (1 / alpha)
    second_factor: Tensor = (torch.cos((1 - alpha) * angle) / exponential.clamp_min(1e-300)) ** ((1 - alpha) / alpha)
    return first * second_factor
