"""Turn a `register.json` into a page of documentation: python -m fpstab.experiments.register REGISTER PAGE."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from fpstab.experiments.register.items import writing
from fpstab.experiments.register.summary import markdown


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write a register.json as Markdown.")
    parser.add_argument("register", type=Path, help="register.json of fpstab reproduce --all")
    parser.add_argument("page", type=Path, help="the page to write, e.g. docs/claims.md")
    arguments = parser.parse_args(argv)
    text = markdown(json.loads(arguments.register.read_text("utf-8")))
    with writing(arguments.page) as path:
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
