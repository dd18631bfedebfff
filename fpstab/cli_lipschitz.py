"""The command `fpstab lipschitz`: certified Lipschitz bounds of a trained network, or of its parts."""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from fpstab.cli_arguments import add_checkpoint
from fpstab.experiments.opening import RefusedError, build_model, config_of, load_weights, model_part

if TYPE_CHECKING:
    from torch import nn

    from fpstab.lipschitz import LipschitzBound
    from fpstab.proofs import Certificate

_DESCRIPTION = """\
Bounds the Lipschitz constant in l2 of the network in a checkpoint: how much it
can enlarge the distance of two inputs, whichever they are. Every bound from
above is proved, rounding included; the numbers from below say how far the truth
can be. A bound below 1 on a map of a space to itself proves that it has exactly
one fixed point, which attracts everything."""

_EPILOG = """\
The network is built from --config: what `fpstab train` was given, or the
config.yaml that a run of LightningCLI leaves beside its checkpoints (found by
itself there). Nothing in the checkpoint is run; it is read as tensors. The
configuration is: it names classes, so use your own.

examples:
  fpstab lipschitz runs/mnist_autoencoder/version_0/checkpoints/last.ckpt
  fpstab lipschitz last.ckpt --config mnist_autoencoder --map net.encoder
  fpstab lipschitz last.ckpt --config my.yaml --map net.head --head softmax
  fpstab lipschitz conv.ckpt --config conv.yaml --input-shape 1,28,28

exit codes:
  0  every part has a certified bound
  1  some part has none (it is said why)
  2  a file could not be read, a layer is not supported, or wrong usage"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "lipschitz",
        help="bound the Lipschitz constant of the network in a checkpoint, with proof",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser, "the model")
    parser.add_argument("--map", action="append", metavar="PATH", help="part to bound, from the LightningModule, e.g. "
                        "net.encoder; repeatable (default: net where there is one, else all)")  # fmt: skip
    parser.add_argument("--form", choices=("neuron", "layer"), default="neuron", help="multipliers of LipSDP: one a "
                        "neuron (default), or one a layer (looser)")  # fmt: skip
    parser.add_argument("--head", choices=("softmax",), help="put a softmax on top")
    parser.add_argument("--backend", default="native", metavar="NAME", help="native (default), first_order, cvxpy, or "
                        "cvxpy:SOLVER")  # fmt: skip
    parser.add_argument("--input-shape", type=_shape, metavar="C,H,W", help="shape of one input, where the layers do "
                        "not tell it")  # fmt: skip
    parser.add_argument("--time-limit", type=_seconds, metavar="SECONDS", help="for the solver; what it has by then is "
                        "certified")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(parser=parser)


def run_lipschitz(arguments: argparse.Namespace) -> int:
    """Build the network, read its weights, bound its parts, print.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 1 if a part has no certified bound; 2 if something could not be read or is not supported;
        130 if interrupted.
    """
    try:
        return _run(arguments)
    except RefusedError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted.")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    model = build_model(config_of(arguments.checkpoint, arguments.config))
    load_weights(model, arguments.checkpoint)
    paths = arguments.map or (["net"] if hasattr(model, "net") else [""])
    results: list[dict[str, Any]] = []
    for path in paths:
        bound, certificate = _bound(model_part(model, path), path, arguments)
        results.append(_plain(path, bound, certificate))
        if not arguments.json:
            _show(f"{arguments.checkpoint}  {path}".rstrip(), bound, certificate)
    if arguments.json:
        print(json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False))
    return 0 if all(result["certified"] for result in results) else 1


def _bound(part: "nn.Module", path: str, arguments: argparse.Namespace) -> "tuple[LipschitzBound, Certificate | None]":
    """The bound of a part; with what it proves, if it maps a space to itself."""
    from dataclasses import replace

    from fpstab.lipschitz import Feedforward, lipschitz_bound
    from fpstab.lipschitz.attained import attained_norm, gaussian_points
    from fpstab.lipschitz.extraction import extract, sample_shape
    from fpstab.proofs import certify_contraction
    from fpstab.results import AnalysisError

    options: dict[str, Any] = {
        "form": arguments.form,
        "backend": arguments.backend,
        "time_limit": arguments.time_limit,
    }
    shape = arguments.input_shape
    try:
        problem = extract(part, input_shape=shape)
        ends = (
            (problem.sizes[0], problem.sizes[-1]) if isinstance(problem, Feedforward) else (problem.n_in, problem.n_out)
        )
        if arguments.head is None and ends[0] == ends[1]:
            certificate = certify_contraction(problem, **options)
            bound = certificate.bound
        else:
            certificate, bound = None, lipschitz_bound(problem, head=arguments.head, throw=False, **options)
    except (AnalysisError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise RefusedError(f"{path or type(part).__name__}: {error}") from error
    points = gaussian_points(sample_shape(part, given=shape))
    return replace(bound, sampled_lower=attained_norm(part, points, head=arguments.head)), certificate


def _show(title: str, bound: "LipschitzBound", certificate: "Certificate | None") -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.width = max(console.width, 80)
    console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("quantity", "value", "what it means"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for row in bound.table():
        value = row["value"]
        known = math.isfinite(value) and (value > 0 or row["quantity"] == "value")
        table.add_row(row["quantity"], _printed(row["quantity"], value) if known else "–", row["meaning"])
    console.print(table)
    if bound.status.message:
        console.print(escape(f"{bound.status.code}: {bound.status.message}"))
    if certificate is not None:
        console.print(escape(certificate.statement))
        if certificate.holds:
            console.print(escape(certificate.hypothesis), style="dim")
    console.print()


def _printed(quantity: str, value: float) -> str:
    """Seven digits, rounded to the side that keeps the number what it is."""
    if value == 0.0 or not 1e-300 < value < 1e300:
        return f"{value:.6e}"
    step = 10.0 ** (math.floor(math.log10(value)) - 6)
    away = math.floor if quantity.endswith("lower") else math.ceil
    return f"{away(value / step) * step:.7g}"


def _plain(path: str, bound: "LipschitzBound", certificate: "Certificate | None") -> dict[str, Any]:
    numbers = {key: value if math.isfinite(value) else None for key, value in bound.scalars().items()}
    return numbers | {
        "map": path,
        "method": bound.method,
        "certified": bound.certified,
        "exact": bound.exact,
        "status": {"code": bound.status.code, "message": bound.status.message},
        "contraction": None
        if certificate is None
        else {"holds": certificate.holds, "statement": certificate.statement, "hypothesis": certificate.hypothesis},
    }


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes with commas between, e.g. 1,28,28")
    return shape


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds > 0")
    return seconds


def _complain(message: str) -> None:
    print(f"fpstab lipschitz: {message}", file=sys.stderr)
