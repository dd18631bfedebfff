"""Items for tests of the register: one that works, one that fails, one that is schematic."""

from matplotlib.figure import Figure

from fpstab.experiments.claims import Claim, Study
from fpstab.experiments.register import Entry

CLAIM = Claim(2, "eq. (1)", "1 < 2 & 2 > 1 | <b>so</b> it is.", "1 is less than 2.", "<i>1</i>")

FULL = {"works": {"size": 1000}, "fails": {}}

CALLS = []
"""The keyword arguments of every call of `works`."""


def works(*, seed=0, size=10, data="data"):
    CALLS.append({"seed": seed, "size": size, "data": str(data)})
    rows = ({"x": 1, "y": float("nan")}, {"x": 2, "z": "a,b"})
    found = CLAIM.found("reproduced", f"<script>alert({seed})</script>", float(size), sample=size)
    return Study(rows, (found,), Figure, {"size": float(size)})


def fails(*, seed=0):
    return 1 / seed


_ROOM = "tests.experiments.register_stubs"

ENTRIES = {
    "works": Entry(2, ("eq. (1)",), "what works, <em>always</em>", _ROOM, "works", ("data",), quick={"size": 3}),
    "broken": Entry(3, ("Figure 1",), "what fails", _ROOM, "fails"),
    "drawn": Entry(5, ("Figure 9",), "a drawing", note="schematic: a <diagram>"),
}
