"""An analysis in the midst of a training: it leaves no trace, and what goes wrong in it is a sentence."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from fpstab import guard
from fpstab.results import AnalysisError, Result

R = TypeVar("R", bound=Result)


def sharded_weight(module: nn.Module) -> str | None:
    """Name of the first parameter that lies in shards on several processes (a DTensor), `None` if all are whole."""
    return next((name for name, each in module.named_parameters() if hasattr(each, "full_tensor")), None)


def attempt(
    who: str, module: nn.Module, measure: Callable[[], R], gathers: bool = False
) -> tuple[str, R | None, dict[str, float]]:
    """Analyse a network that is in training.

    Args:
        who: Stands before what there is to say.
        module: The network; it is left untouched.
        measure: The analysis.
        gathers: Whether it gathers weights that are sharded; one that does not is not made of such a network.

    Returns:
        What there is to say, the result, and its scalars; `None` and no scalars if the analysis failed.
    """
    if not gathers and (name := sharded_weight(module)) is not None:
        why = f"{name} is sharded over processes, and this analysis takes whole weights (strategy='ddp' keeps them whole)."
        return f"{who} has nothing to measure: {why}", None, {}
    try:
        with guard.untouched(module):
            result = measure()
        status, scalars = result.status, result.scalars()
    except AnalysisError as error:  # a sentence of its own
        return f"{who} has nothing to measure: {error.status.message}", None, {}
    except Exception as error:  # whatever goes wrong in an analysis must not stop training
        return f"{who} failed: {type(error).__name__}: {error}", None, {}
    if not status.ok:
        return f"{who} has nothing to measure: {status.message}", None, {}
    said = status.message
    return said if not said or said.startswith(who) else f"{who}: {said}", result, scalars
