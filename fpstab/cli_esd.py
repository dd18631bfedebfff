"""The command `fpstab esd`: the spectra of the weights in a checkpoint."""

import argparse
import csv
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpstab.esd import Checkpoint, ESDReport
    from fpstab.esd.weights import Weight
    from fpstab.results import Status

_PANELS = 24  # on a page of pictures
_SHOWN = 5  # of the names that a pattern could have matched

_DESCRIPTION = """\
Shows the spectrum of every weight in a checkpoint: the exponent alpha of the
power law in its tail, as WeightWatcher has it, and a verdict whether that tail
is heavy, which alpha alone does not tell (see --legend)."""

_EPILOG = """\
files:
  Checkpoints of Lightning and PyTorch (a state dict, alone or among other
  things), safetensors, and Hugging Face folders, sharded or not. The shards of
  one model, or their index, are one model; every other FILE is one of its own.
  Nothing in a file is run: a pickle that asks for code is refused. Weights are
  read one at a time, so that a model need not fit into memory.

examples:
  fpstab esd model.safetensors
  fpstab esd runs/*/checkpoints/last.ckpt --csv spectra.csv
  fpstab esd TinyLlama-1.1B/ --include '*.mlp' --plots pictures
  fpstab esd last.ckpt --initial epoch=0.ckpt    what training made of them
  fpstab esd last.ckpt --json - | jq '.[0].summary'
  fpstab esd --legend | less

exit codes:
  0  all weights were analysed
  1  some could not be (NaN, ...): they are listed on stderr
  2  a file could not be read or written, no layer was chosen, or wrong usage;
     the other files are still done"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "esd",
        help="show the spectra of the weights in a checkpoint, for those who know WeightWatcher",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a checkpoint; see below")
    parser.add_argument("--initial", type=Path, metavar="FILE", help="the checkpoint before training, to compare with")
    parser.add_argument("--include", action="append", metavar="PATTERN", help="only these layers: a shell pattern of "
                        "names, which also takes everything below the module it names; repeatable")  # fmt: skip
    parser.add_argument("--exclude", action="append", metavar="PATTERN", help="leave these layers out; repeatable")
    parser.add_argument("--conv", choices=("flatten", "slices"), default="flatten", help="a convolution as one matrix "
                        "out × (in · kernel), or one out × in for each kernel position (default: flatten)")  # fmt: skip
    parser.add_argument("--randomize", action="store_true", help="also compute rand_distance, the distance to the "
                        "spectrum of the shuffled entries (takes twice the time)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics as JSON, a list with one object a "
                        "model; - for stdout, instead of the tables")  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all metrics as CSV; - as above")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the spectra and their bulks, as PNG")
    parser.add_argument("--quiet", action="store_true", help="no tables and no progress; errors are still said")
    parser.add_argument("--legend", action=_Legend, help="explain the table, the verdicts and the metrics, and exit")
    parser.set_defaults(parser=parser)


class _Legend(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from fpstab.esd import LEGEND

        print(LEGEND, end="")
        parser.exit()


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """What became of one checkpoint."""

    name: str
    notes: tuple[str, ...]
    report: "ESDReport"


def run_esd(arguments: argparse.Namespace) -> int:
    """Analyse the checkpoints; show, write and draw the results.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 1 if a layer failed; 2 if a file could not be read or written; 130 if interrupted.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:  # of what is written; what is read has errors of its own
        _complain(f"{error.filename or 'the output'} cannot be written: {error.strerror or error}.")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted.")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    outputs = [path for path in (arguments.json, arguments.csv) if path is not None]
    _check_outputs(arguments.parser, outputs)
    if arguments.plots is not None:
        arguments.plots.mkdir(parents=True, exist_ok=True)
    show = not arguments.quiet and Path("-") not in outputs

    from fpstab.esd.checkpoints import group_shards
    from fpstab.esd.tables import printable

    initial = None
    if arguments.initial is not None and (initial := _analyse([arguments.initial], arguments)) is None:
        return 2
    groups = group_shards(arguments.files)
    models: list[_Model] = []
    drawn: set[str] = set()
    for paths in groups:
        if (model := _analyse(paths, arguments)) is None:
            continue
        models.append(model)
        if initial and not {x.name for x in initial.report.layers} & {x.name for x in model.report.layers}:
            _complain(f"{initial.name} and {model.name} have no layer in common: nothing to compare.")
        if show:
            _show(model, initial)
        if arguments.plots is not None:
            for picture in _draw(model, arguments.plots, drawn):
                if show:
                    print(f"picture: {printable(str(picture))}")
    before = initial.report if initial else None
    if arguments.json is not None:
        _write(arguments.json, _json(models, before))
    if arguments.csv is not None:
        _write(arguments.csv, _csv(models, before))
    failed = [
        f"{model.name}: {layer.status.message}" for model in models for layer in model.report.layers if layer.failed
    ]
    for message in failed:
        _complain(message)
    return 2 if len(models) < len(groups) else 1 if failed else 0


def _check_outputs(parser: argparse.ArgumentParser, outputs: list[Path]) -> None:
    """Better now than after hours."""
    if len(set(outputs)) < len(outputs):
        parser.error("--json and --csv cannot both write to the same place")
    for path in outputs:
        if path.is_dir():
            parser.error(f"cannot write {path}: it is a folder")
        if not path.parent.is_dir():
            parser.error(f"cannot write {path}: there is no folder {path.parent}")


def _analyse(paths: list[Path], arguments: argparse.Namespace) -> _Model | None:
    """Analyse one checkpoint, with a progress bar on a terminal; nothing if it cannot be, which is said."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fpstab.esd import CheckpointError, ESDReport, open_checkpoint
    from fpstab.esd.reports import analyse_weights
    from fpstab.esd.tables import printable

    console = Console(stderr=True)
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    hidden = arguments.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(escape(printable(str(paths[0]))), total=None)
        try:
            checkpoint = open_checkpoint(*paths)
        except CheckpointError as error:
            _complain(error.status.message)
            return None
        weights, status = _choose(checkpoint, arguments.include or (), arguments.exclude or ())
        if status.message:
            _complain(status.message)
        if not weights:
            return None
        progress.update(task, total=len(weights))
        layers = []
        for layer in analyse_weights(weights, arguments.conv, randomize=arguments.randomize, generator=None):
            layers.append(layer)
            progress.update(task, advance=1, description=escape(printable(layer.name)))
    return _Model(checkpoint.name, checkpoint.notes, ESDReport(tuple(layers), status))


def _choose(
    checkpoint: "Checkpoint", include: Sequence[str], exclude: Sequence[str]
) -> tuple[list["Weight"], "Status"]:
    from fpstab.esd.weights import select
    from fpstab.results import OK, Status

    names = [weight.name for weight in checkpoint.weights]
    chosen, idle = select(names, include, exclude)
    kept = set(chosen)
    weights = [weight for weight in checkpoint.weights if weight.name in kept]
    if weights and not idle:
        return weights, OK
    what = f"no layer matches {', '.join(map(repr, idle))}" if idle else "the patterns leave no layer"
    known = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return weights, Status("ok" if weights else "no_match", f"{checkpoint.name}: {what}; the layers are {known}.")


def _show(model: _Model, initial: _Model | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    from fpstab.esd.tables import printable, report_table, summary_lines

    console = Console(highlight=False)
    console.width = max(console.width, 80)
    console.print(f"[bold]{escape(printable(model.name))}[/]", soft_wrap=True)
    for note in model.notes:
        console.print(escape(printable(note)), style="dim")
    console.print(report_table(model.report, initial.report if initial else None, width=console.width))
    for line in summary_lines(model.report):
        console.print(line)
    console.print()


def _draw(model: _Model, folder: Path, drawn: set[str]) -> Iterator[Path]:
    """Draw pages of 24 panels, of spectra and of bulks, under a name that no model before has `drawn`."""
    from fpstab.esd import ESDReport
    from fpstab.esd.plots import plot_bulk, plot_layer, plot_report

    slug = re.sub(r"[^\w.-]+", "_", Path(model.name).name, flags=re.ASCII).strip("._-")[-100:] or "model"
    while slug in drawn:
        slug += "_"
    drawn.add(slug)
    layers = model.report.layers
    for kind, plot in (("spectra", plot_layer), ("bulks", plot_bulk)):
        for start in range(0, len(layers), _PANELS):
            page = f"-{start // _PANELS + 1}" if len(layers) > _PANELS else ""
            path = folder / f"{slug}-{kind}{page}.png"
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph")  # names in a script that the font lacks
                plot_report(ESDReport(layers[start : start + _PANELS], model.report.status), plot).savefig(
                    path, dpi=110
                )
            yield path


def _json(models: list[_Model], initial: "ESDReport | None") -> str:
    described = [
        {"file": model.name, "notes": model.notes} | json.loads(model.report.to_json(initial)) for model in models
    ]
    return json.dumps(described, allow_nan=False, indent=1) + "\n"


def _csv(models: list[_Model], initial: "ESDReport | None") -> str:
    rows = [{"file": model.name} | row for model in models for row in model.report.table(initial)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with io.StringIO(newline="") as text:
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _write(path: Path, text: str) -> None:
    """Write a file that is never seen half written; or to stdout."""
    if path == Path("-"):
        sys.stdout.write(text)
        return
    path = path.resolve()
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_text(text, "utf-8", "backslashreplace")
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, "utf-8", "backslashreplace")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _complain(message: str) -> None:
    from fpstab.esd.tables import printable

    print(f"fpstab esd: {printable(message)}", file=sys.stderr)
