"""Runs fixed-point-finder once: arguments are its folder, a folder with net.pt and starts.npy, and 1 for Jacobians."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

source, folder, jacobians = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1"
sys.path.insert(0, source)
from FixedPointFinderTorch import FixedPointFinderTorch  # noqa: E402

torch.set_num_threads(1)


class Recurrent(nn.Module):
    """The autoencoder in the form of an RNN with one step and an input that it ignores."""

    batch_first = True

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(784, 256), nn.Tanh(), nn.Linear(256, 64), nn.Tanh(),
            nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 784), nn.Tanh(),
        )  # fmt: skip
        self.net.load_state_dict(torch.load(folder / "net.pt", weights_only=True))

    def forward(self, inputs, state):
        state = self.net(state)
        return state.transpose(0, 1), state


finder = FixedPointFinderTorch(Recurrent(), do_compute_jacobians=jacobians, do_decompose_jacobians=jacobians)
# its torch version returns None here and then fails to keep it
finder._compute_input_jacobians = lambda points: np.zeros((points.n, 784, 1), dtype=np.float32)
start = time.process_time()
unique, _ = finder.find_fixed_points(np.load(folder / "starts.npy"), np.zeros((1, 1), dtype=np.float32))
np.savez(folder / "found.npz", x=unique.xstar, q=unique.qstar, seconds=time.process_time() - start)
