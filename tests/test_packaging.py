"""The sdist and the wheel hold everything, and work outside the clone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command, cwd):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_module_imports_from_a_wheel_made_from_the_sdist(tmp_path):
    clone = tmp_path / "clone"  # the build leaves traces beside the sources
    ignore = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "dist", "runs", "data", ".*_cache")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=ignore)
    run("-m", "build", "--outdir", tmp_path / "dist", clone, cwd=tmp_path)  # the wheel is built from the sdist
    (wheel,) = (tmp_path / "dist").glob("fpstab-*.whl")
    target = tmp_path / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=tmp_path)

    def modules(*folders):
        return {path.relative_to(root).as_posix() for root, pattern in folders for path in root.glob(pattern)}

    ours = modules((ROOT, "fpstab/*.py"), (ROOT, "callbacks/*.py"), (ROOT, "models/*.py"))
    ours |= modules((ROOT, "fpstab/[!cm]*/**/*.py"), (ROOT, "fpstab/configs/*.yaml"), (ROOT, "fpstab/py.typed"))
    ours = {name if name.startswith("fpstab/") else f"fpstab/{name}" for name in ours}
    packed = modules((target, "fpstab/**/*.py"), (target, "fpstab/**/*.yaml"), (target, "fpstab/py.typed"))
    assert packed == ours

    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import fpstab, pkgutil, importlib\n"
        f"assert fpstab.__file__.startswith({str(target)!r}), fpstab.__file__\n"
        "names = [m.name for m in pkgutil.walk_packages(fpstab.__path__, 'fpstab.') if m.name != 'fpstab.__main__']\n"
        "for name in names:\n"
        f"    assert importlib.import_module(name).__file__.startswith({str(target)!r}), name\n"
        "assert {'fpstab.callbacks.esd', 'fpstab.models.data', 'fpstab.esd.tails'} <= set(names)\n"
        "from fpstab.experiments.training import packaged_config; assert packaged_config('mnist_autoencoder').endswith('.yaml')\n"
    )
    run("-I", "-c", code, cwd=tmp_path)
