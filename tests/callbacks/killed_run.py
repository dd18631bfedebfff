"""Trains, is killed again and again, and resumes from its last checkpoint. Run by test_killed.py: FOLDER KILLS SEED.

Every life is a fork of one process, which has imported all that is needed. After each death the file as it was found is
kept beside: `found-<life>.jsonl`. `lives.json` says how each life ended.
"""

import json
import logging
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from fsspec.implementations.local import LocalFileOpener
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from fpstab.records import lines as records
from tests.callbacks.watched import STEPS, all_monitors, watched_loaders, watched_task

EVERY_STEPS = 2


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A file whose n-th write of the process is cut short, by the death of the process."""

    def __init__(self, file, counter, count, share):
        self.file, self.counter, self.count, self.share = file, counter, count, share

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.counter.append(len(data))
        if len(self.counter) == self.count:
            self.file.write(data[: int(self.share * len(data))])
            die()
        return self.file.write(data)


def prepare(end):
    """Have the process die in the midst of a line or of a checkpoint, or right after one."""
    if end["kind"] == "line":
        counter = []
        records.open = lambda *a, **k: Dying(open(*a, **k), counter, end["count"], end["share"])  # noqa: SIM115
    elif end["kind"] == "checkpoint":
        whole, written = LocalFileOpener.write, []

        def write(self, data, *args, **kwargs):
            written.append(data)
            if len(written) == end["count"]:
                self.f.write(data[: int(end["share"] * len(data))])
                self.f.flush()
                die()
            return whole(self, data, *args, **kwargs)

        LocalFileOpener.write = write
    elif end["kind"] == "saved":
        commit, saved = LocalFileOpener.commit, []

        def last(self):
            commit(self)
            saved.append(self)
            if len(saved) == end["count"]:
                die()

        LocalFileOpener.commit = last


class Within(ModelCheckpoint):
    """Every few steps, but for the last of an epoch: the validation's own checkpoint comes right after.

    Lightning 2.6 counts steps wrongly in what it saves after it has resumed from a checkpoint of an epoch's last step.
    """

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step % STEPS:
            super().on_train_batch_end(trainer, *args)


def newest(folder):
    """The checkpoint to go on from, as somebody would choose it: the latest of those that can be read."""
    steps = {}
    for path in folder.glob("*.ckpt"):
        steps[torch.load(path, weights_only=True)["global_step"]] = path
    return steps[max(steps)] if steps else None


def train(folder, epochs):
    torch.set_num_threads(1)
    checkpoints = [
        Within(folder, "steps-{step}", save_last=True, every_n_train_steps=EVERY_STEPS),
        ModelCheckpoint(folder, "epochs-{step}", every_n_epochs=1, save_on_train_epoch_end=False),
    ]
    fit = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*all_monitors(), *checkpoints],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fit.fit(watched_task(), *watched_loaders(), ckpt_path=newest(folder), weights_only=True)


def live(folder, epochs, end):
    """One life; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            prepare(end)
            train(folder, epochs)
            os._exit(0)
        except BaseException as error:
            (folder / "error.txt").write_text(repr(error))
            os._exit(1)
    if end["kind"] == "time":
        deadline = time.monotonic() + end["seconds"]
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder, kills, seed):
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    start, epochs = time.monotonic(), kills + 1
    assert live(folder / "whole", epochs, {"kind": "never"}) == 0, (folder / "whole" / "error.txt").read_text()
    took, draw, lives = time.monotonic() - start, random.Random(seed), []
    kinds = [("line", "saved", "checkpoint", "time")[k % 4] for k in range(kills)]
    for kind in [*kinds, "never"]:
        end = {
            "kind": kind,
            "count": draw.randint(1, 16 if kind == "line" else 4),
            "share": draw.random(),
            "seconds": took / epochs * draw.uniform(0.3, 1.7),
        }
        code = live(folder / "killed", epochs, end)
        lives.append({**end, "code": code})
        found = folder / "killed" / records.FILE_NAME
        (folder / f"found-{len(lives)}.jsonl").write_bytes(found.read_bytes() if found.exists() else b"")
        if code == 0:
            break
    (folder / "lives.json").write_text(json.dumps(lives))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
