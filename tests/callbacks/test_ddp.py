"""On two processes: the same numbers everywhere, one file, nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpstab.callbacks import read_lines
from tests.callbacks.toys import NAMESPACES


@pytest.mark.slow
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_two_processes(tmp_path, namespace):
    script = Path(__file__).with_name("ddp_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), namespace],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ
        | {
            "PYTHONPATH": str(script.parents[2]),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert first.pop("path").endswith("fpstab.jsonl")
    assert second.pop("path") == "None"
    assert first == second
    assert first["best"] == 3.0
    assert first["epochs"] == 5  # nothing, 5, 3, 4, 4
    assert first["best_path"].endswith("epoch=2.ckpt")
    assert first["metrics"]["fpstab/esd/net.0/alpha"] > 1
    assert first["metrics"]["fpstab/jacobian/rho_max"] > 0
    assert first["metrics"]["fpstab/fixed_points/failed"] == 0
    lines = [line for path in tmp_path.rglob("fpstab.jsonl") for line in read_lines(path)]
    assert len(lines) == len(first["history"])
    assert sum(line["failed"] for line in lines) == 2
