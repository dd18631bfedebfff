"""A DTensor is gathered: a shard is not the matrix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fpstab.esd import esd_report


@pytest.mark.slow
def test_a_weight_in_two_shards(tmp_path):
    script = Path(__file__).with_name("sharded_run.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = esd_report(nn.Linear(60, 50)).layers[0]
    for rank in (0, 1):
        n, alpha = (tmp_path / f"rank-{rank}").read_text().split()
        assert int(n) == 50
        assert float(alpha) == pytest.approx(whole.alpha, rel=1e-12)
