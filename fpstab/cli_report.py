"""The command `fpstab report`: what became of a run, on one page."""

import argparse
import os
import sys
from pathlib import Path

_DESCRIPTION = """\
Tells what became of a run that monitors of fpstab.callbacks watched: a summary in words
that says what is proved, counted, estimated or only seen, charts, pictures, tables,
versions, seeds and the configuration, in one HTML file that needs no network. Reads
fpstab.jsonl, checkpoints, TensorBoard's events or metrics.csv, while training goes on too."""

_EPILOG = """\
examples:
  fpstab report lightning_logs/version_3
  fpstab report runs/mnist_autoencoder                  the newest run below
  fpstab report runs/a/version_0 runs/b/version_0       two runs, side by side
  fpstab report lightning_logs/version_3 --format md    on the terminal"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "report",
        help="write one page that tells the story of a run, or of two side by side",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_DIR", help="the log folder of a run, or one above it"
    )
    parser.add_argument("--format", choices=("html", "md", "json"), default="html", help="default: html")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write; - for stdout (default: "
                        "fpstab-report.html in the first RUN_DIR; stdout for md and json)")  # fmt: skip
    parser.add_argument("--run", metavar="NAME", help="which run, if fpstab.jsonl holds several (default: the last)")


def run_report(arguments: argparse.Namespace) -> int:
    """Write the report.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 2 if there is nothing to read, or the page cannot be written.
    """
    from fpstab.experiments.opening import RefusedError
    from fpstab.report.pages import write_report
    from fpstab.report.runs import open_run

    try:
        runs = [open_run(path, arguments.run) for path in arguments.runs]
        text = write_report(runs, arguments.format)
        out = arguments.out
        if out is None and arguments.format == "html":
            out = runs[0].folder / "fpstab-report.html"
        if out is None or str(out) == "-":
            sys.stdout.write(text)
            return 0
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(out)
    except (RefusedError, OSError) as error:
        print(f"fpstab report: {error}", file=sys.stderr)
        return 2
    for given, run in zip(arguments.runs, runs, strict=True):
        if given.resolve() not in (run.folder.resolve(), run.folder.resolve() / "fpstab.jsonl"):
            print(f"{given}: the newest run below it is {run.folder}")
    print(out)
    return 0
