"""How the documentation is built: sphinx-build -W docs build/docs."""

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

project, author, release = "fpstab", "The fpstab authors", metadata.version("fpstab")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme, html_title = "furo", f"fpstab {release}"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and units, which types do not
autodoc_default_options = {"members": True, "exclude-members": "state_dict, load_state_dict, setup, teardown"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["myst.header", "ref.python"]


def _escape(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings write |x| for sizes and `name` for code; reStructuredText would take both for something else."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        bullet = re.match(r"\s*\* ", line)
        start = bullet.end() if bullet else 0
        pieces = re.split(r"(`[^`]+`)", line[start:])
        for j, piece in enumerate(pieces):
            if j % 2:
                goes_on = pieces[j + 1][:1].isalnum()  # a word behind it, as in `Linear`s
                pieces[j] = f"`{piece}`" + ("\\ " if goes_on else "")
            else:
                pieces[j] = re.sub(r"([|*_])", r"\\\1", piece)
        lines[i] = line[:start] + "".join(pieces)


def setup(app: Any) -> None:
    """Called by Sphinx. Before napoleon, which makes markup of its own."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
