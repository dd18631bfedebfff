"""On two processes: the same numbers everywhere and as on one, one file, nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpstab.callbacks import read_lines
from tests.callbacks import ddp_run
from tests.callbacks.toys import NAMESPACES


def run(folder, namespace, processes, case):
    """What each process saw, and what was printed."""
    script = Path(__file__).with_name("ddp_run.py")
    environment = {"PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(folder), namespace, str(processes), case],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | environment,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen = [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(processes)]
    assert [each.pop("rank") for each in seen] == list(range(processes))
    assert seen[0].pop("path").endswith("fpstab.jsonl")
    assert {each.pop("path") for each in seen[1:]} <= {"None"}
    assert all(each == seen[0] for each in seen)
    lines = [line for path in folder.rglob("fpstab.jsonl") for line in read_lines(path)]
    assert len(lines) == sum(map(len, seen[0]["history"].values()))
    return seen[0], lines, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_early_stopping_and_checkpoints_watch_a_monitor_that_fails_at_first(tmp_path, namespace):
    seen, lines, _ = run(tmp_path / "two", namespace, 2, "stopping")
    assert seen["epochs"] == 5  # nothing, 5, 3, 4, 4
    assert seen["best_score"] == [3.0]
    assert seen["best_path"] == ["epoch=2.ckpt"]
    assert seen["metrics"]["fpstab/esd/net.0/alpha"] > 1
    assert sum(line["failed"] for line in lines) == 2


@pytest.mark.slow
def test_every_monitor_says_what_it_says_on_one_process(tmp_path):
    ddp_run.main(tmp_path, "pytorch_lightning", 1, "all")
    one = json.loads((tmp_path / "seen-0.json").read_text())
    two, _, _ = run(tmp_path / "two", "pytorch_lightning", 2, "all")
    assert one["history"].keys() == two["history"].keys()
    assert len(one["history"]) == 7
    for name, records in one["history"].items():
        assert [step for step, _ in records] == [step for step, _ in two["history"][name]]
        for (_, alone), (_, together) in zip(records, two["history"][name], strict=True):
            assert alone[f"fpstab/{name}/failed"] == 0
            seconds = f"fpstab/{name}/seconds"
            assert alone.keys() == together.keys()
            for key in alone.keys() - {seconds}:
                wanted, found = alone[key], together[key]
                assert found == (wanted if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-9)), key
    assert one["best_path"] == two["best_path"] != [""]
    assert one["best_score"] == pytest.approx(two["best_score"], rel=1e-9)


@pytest.mark.slow
def test_sharded_weights_are_gathered_or_refused_with_a_sentence(tmp_path):
    seen, lines, said = run(tmp_path / "two", "pytorch_lightning", 2, "sharded")
    last = {name: records[-1][1] for name, records in seen["history"].items()}
    assert last["esd"]["fpstab/esd/failed"] == 0
    assert last["esd"]["fpstab/esd/net.head/largest_singular_value"] > 0
    assert last["lipschitz"]["fpstab/lipschitz/certified"] == 1
    refused = {line["monitor"].split("[")[0]: line["message"] for line in lines if line["failed"]}
    assert refused.keys() == {
        f"{name}Monitor" for name in ("FixedPoint", "Jacobian", "Equilibrium", "Stability", "Orbit")
    }
    for monitor, message in refused.items():
        assert message.startswith(f"{monitor} has nothing to measure: net.blocks.0.0.weight is sharded over processes")
        assert said.count(message) == 1
