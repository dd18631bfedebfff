"""Who may import whom, what an import costs, and what it must not bring."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fpstab

ROOT = Path(__file__).parent.parent
TOP = (
    "cli",
    "cli_apply",
    "cli_arguments",
    "cli_esd",
    "cli_lipschitz",
    "cli_orbits",
    "cli_report",
    "cli_reproduce",
    "cli_watch",
    "report",
    "experiments",
    "__main__",
)


def modules():
    for path in [*ROOT.glob("fpstab/**/*.py"), *ROOT.glob("callbacks/*.py"), *ROOT.glob("models/*.py")]:
        relative = path.relative_to(ROOT)
        if relative.parts[:2] not in (("fpstab", "callbacks"), ("fpstab", "models")):  # links to the top
            yield relative


def imports(path, top_level=False):
    """Dotted names of all imports of a file; with `top_level`, of those that run when it is imported."""
    tree = ast.parse((ROOT / path).read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tier(path):
    if path.parts[0] in ("callbacks", "models"):
        return path.parts[0]
    return "top" if path.parts[1].removesuffix(".py") in TOP else "bottom"


@pytest.mark.parametrize("path", sorted(modules()), ids=str)
def test_tiers(path):
    names = list(imports(path))
    lightning = [n for n in names if n.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric")]
    fpstab = [n for n in names if n.startswith("fpstab")]
    upward = [n for n in fpstab if n.split(".")[1:2] and n.split(".")[1] in TOP]
    if tier(path) == "bottom":
        assert lightning == []
        assert upward == []
        assert not [n for n in fpstab if n.startswith(("fpstab.callbacks", "fpstab.models"))]
    elif tier(path) == "callbacks":
        assert upward == []
        assert not [n for n in fpstab if n.startswith("fpstab.models")]
        if path.name != "_lightning.py":  # the only room that names a namespace
            assert lightning == []
    elif tier(path) == "models":
        assert upward == []
        assert not [n for n in fpstab if n.startswith("fpstab.callbacks")]
    else:
        top_level = [n.split(".")[0] for n in imports(path, top_level=True)]
        assert not {"lightning", "pytorch_lightning"} & set(top_level)


def test_the_rule_can_fail():
    assert list(imports("callbacks/_lightning.py"))
    assert "pytorch_lightning.Callback" in list(imports("callbacks/_lightning.py"))
    assert tier(Path("fpstab/esd/tails.py")) == "bottom"
    assert tier(Path("fpstab/cli.py")) == tier(Path("fpstab/experiments/demo.py")) == "top"


def modules_after(code):
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert run.stderr == ""
    return set(run.stdout.split())


def test_import_is_light():
    loaded = modules_after("import fpstab")
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_the_analyses_import_nothing_heavy():
    loaded = modules_after("import fpstab.esd, fpstab.guard, fpstab.maps, fpstab.results")
    heavy = {"cvxpy", "sklearn", "matplotlib", "pytorch_lightning", "lightning", "torchvision", "tensorboard", "rich"}
    assert heavy & loaded == set()


def test_nothing_is_called_callbacks_or_models():
    loaded = modules_after("import fpstab, fpstab.callbacks, fpstab.models, fpstab.esd")
    assert {"callbacks", "models"} & loaded == set()
    assert {"fpstab.callbacks.base", "fpstab.models.mlp"} <= loaded


@pytest.mark.parametrize("missing", ["pytorch_lightning", "lightning"])
def test_callbacks_work_with_either_namespace_alone(missing):
    present = {"pytorch_lightning": "lightning.pytorch", "lightning": "pytorch_lightning"}[missing]
    modules_after(
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {missing!r} else find(name, *a)\n"
        "from fpstab.callbacks import ESDMonitor\n"
        f"from {present} import Callback, Trainer\n"
        "assert isinstance(ESDMonitor(), Callback)\n"
        f"assert {missing!r} not in sys.modules, 'imported'\n"
        "import logging; logging.disable()\n"
        "Trainer(callbacks=ESDMonitor(), logger=False, enable_checkpointing=False, accelerator='cpu')\n"
    )


def test_sub_packages_are_at_hand():
    modules_after("import fpstab; fpstab.esd.esd_report; fpstab.callbacks.ESDMonitor; dir(fpstab)")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fpstab.nothing  # noqa: B018
