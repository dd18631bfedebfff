"""The spectra of all weights of a network in one report."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from fpstab import guard
from fpstab.esd.layers import LayerESD, analyse_weight
from fpstab.esd.metrics import SUMMARY
from fpstab.esd.spectra import Conv
from fpstab.esd.weights import Weight, network_weights, select
from fpstab.results import OK, Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class ESDReport:
    """The spectra of a network's weights.

    Attributes:
        layers: One `LayerESD` for each weight, in the network's order.
        status: `"ok"`, with a message if a pattern matched nothing; `"no_weights"` (the network holds no
            matrix); `"no_match"` (the patterns leave no layer). Other codes belong to the layers.
    """

    layers: tuple[LayerESD, ...]
    status: Status

    def __getitem__(self, name: str) -> LayerESD:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{name!r} is none of the layers: {', '.join(layer.name for layer in self.layers)}")

    def scalars(self) -> dict[str, float]:
        """Aggregates over the layers, then `<layer>/<quantity>`; nan where there is none."""
        alphas = [layer.alpha for layer in self.layers if layer.alpha is not None]
        scalars = {
            "alpha_median": statistics.median(alphas) if alphas else math.nan,
            "alpha_min": min(alphas, default=math.nan),
            "n_heavy": float(
                sum(layer.verdict is not None and layer.verdict.label == "heavy" for layer in self.layers)
            ),
            "n_spikes": float(sum(layer.spikes for layer in self.layers)),
            "n_failed": float(sum(layer.failed for layer in self.layers)),
        }
        for layer in self.layers:
            scalars |= {f"{layer.name}/{key}": value for key, value in layer.scalars().items()}
        return scalars

    def summary(self) -> dict[str, float]:
        """Means of the metrics over the layers that have them, under WeightWatcher's names; nan where none has."""
        means = {}
        for name in SUMMARY:
            values = [value for layer in self.layers if (value := layer.metrics.get(name)) is not None]
            means[name] = statistics.fmean(values) if values else math.nan
        return means

    def table(self, initial: "ESDReport | None" = None) -> list[dict[str, Any]]:
        """One row a layer: verdict, cause and all metrics; with `initial`, an earlier report, also what was then."""
        before = {layer.name: layer for layer in initial.layers} if initial else {}
        columns = list(dict.fromkeys(name for layer in self.layers for name in layer.metrics))
        rows = []
        for layer in self.layers:
            row: dict[str, Any] = {
                "layer": layer.name,
                "kind": layer.kind,
                "shape": "×".join(map(str, layer.shape)),
                "n": layer.n,
                "verdict": layer.verdict.label if layer.verdict else None,
                "cause": layer.verdict.cause if layer.verdict else None,
                "status": layer.status.code,
            }
            row |= {name: layer.metrics.get(name) for name in columns}
            if initial:
                then = before.get(layer.name)
                row["verdict_initial"] = then.verdict.label if then and then.verdict else None
                row |= {
                    f"{name}_initial": then.metrics.get(name) if then else None for name in ("alpha", "spectral_norm")
                }
            rows.append(row)
        return rows

    def to_csv(self, initial: "ESDReport | None" = None) -> str:
        """The table as CSV; an empty field where there is no value."""
        rows = self.table(initial)
        with io.StringIO(newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]) if rows else ["layer"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            return text.getvalue()

    def to_json(self, initial: "ESDReport | None" = None) -> str:
        """Status, summary, table and what each status says, as JSON; null where there is no value."""
        summary = {name: value if math.isfinite(value) else None for name, value in self.summary().items()}
        layers = [
            {
                name: value if not isinstance(value, float) or math.isfinite(value) else None
                for name, value in row.items()
            }
            | {"message": layer.status.message}
            for row, layer in zip(self.table(initial), self.layers, strict=True)
        ]
        status = {"code": self.status.code, "message": self.status.message}
        return json.dumps({"status": status, "summary": summary, "layers": layers}, allow_nan=False, indent=1)

    def to_dataframe(self, initial: "ESDReport | None" = None) -> "pd.DataFrame":
        """The table as a pandas DataFrame.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame(self.table(initial))

    def plot(self) -> "Figure":
        """Draw the ESD of every layer, one panel each."""
        from fpstab.esd.plots import plot_report

        return plot_report(self)


def esd_report(
    module: nn.Module,
    *,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    conv: Conv = "flatten",
    randomize: bool = False,
    generator: torch.Generator | None = None,
) -> ESDReport:
    """Analyse the spectrum of every weight of a network (papers 1 §III, 2 §II).

    Never fails for what a network holds: a layer that cannot be analysed says so in its status. The network,
    its modes, buffers, gradients and all random states are afterwards as before.

    Args:
        module: Any network.
        include: Shell patterns of layer names (`"encoder.*"`); a pattern also takes everything below the
            module it names. Default: all weights.
        exclude: Patterns of what to leave out.
        conv: How a convolution becomes matrices, see `weight_spectrum`.
        randomize: Compute the metric `rand_distance` too, which needs a second spectrum of every layer.
        generator: Shuffles the entries of a layer for the cause of a heavy tail; by default one with seed 0 for
            each layer.

    Raises:
        TypeError: If `module` is not a module, or a pattern not a string.
        ValueError: If `conv` is unknown.

    >>> report = esd_report(nn.Linear(2, 100))
    >>> report.layers[0].n, report.layers[0].alpha, report.layers[0].status.code
    (2, None, 'too_few')
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"esd_report takes a torch.nn.Module, got {type(module).__name__}.")
    with guard.untouched(module), torch.no_grad():
        for submodule in module.modules():
            if isinstance(submodule, ParametrizationList):
                submodule.eval()  # in train mode, reading a spectral_norm weight advances its power iteration
        selected, status = select_weights(network_weights(module), include, exclude)
        layers = tuple(analyse_weights(selected, conv, randomize=randomize, generator=generator))
    return ESDReport(layers, status)


def select_weights(
    weights: Iterable[Weight], include: str | Iterable[str] | None, exclude: str | Iterable[str] | None
) -> tuple[list[Weight], Status]:
    """Choose weights by patterns, as `esd_report` does, and say how that went.

    Raises:
        TypeError: If a pattern is not a string.
    """
    by_name = {weight.name: weight for weight in weights}
    names, idle = select(list(by_name), _patterns("include", include), _patterns("exclude", exclude))
    return [by_name[name] for name in names], _status(list(by_name), idle, len(names))


def analyse_weights(
    weights: Iterable[Weight], conv: Conv, *, randomize: bool, generator: torch.Generator | None
) -> Iterator[LayerESD]:
    """Analyse weights one after the other, each read only when its turn comes.

    Raises:
        ValueError: If `conv` is unknown.
    """
    if conv not in ("flatten", "slices"):
        raise ValueError(f"conv={conv!r} is unknown: expected 'flatten' or 'slices'.")
    for weight in weights:
        yield analyse_weight(weight, conv, randomize=randomize, generator=generator)


def _patterns(name: str, patterns: str | Iterable[str] | None) -> tuple[str, ...]:
    if patterns is None:
        return ()
    if isinstance(patterns, str):
        return (patterns,)
    if isinstance(patterns, Iterable):
        chosen = tuple(patterns)
        if all(isinstance(pattern, str) for pattern in chosen):
            return chosen
    raise TypeError(f"{name}={patterns!r} is not understood: expected a shell pattern or several.")


def _status(names: list[str], idle: list[str], n_layers: int) -> Status:
    if not names:
        return Status("no_weights", "The network holds no weight with two or more dimensions.")
    if idle or not n_layers:
        what = f"No weight matches {', '.join(map(repr, idle))}" if idle else "include and exclude leave no weight"
        return Status("ok" if n_layers else "no_match", f"{what}; the weights are: {', '.join(names)}.")
    return OK
