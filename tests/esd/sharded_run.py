"""Two gloo processes hold a weight in shards; each prints the exponent it finds. Run by test_sharded.py: FOLDER."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from fpstab.esd import esd_report


def main(rank, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.Linear(60, 50)
    net.weight = nn.Parameter(distribute_tensor(net.weight.detach(), init_device_mesh("cpu", (2,)), [Shard(0)]))
    assert net.weight.to_local().shape == (25, 60)
    layer = esd_report(net).layers[0]
    Path(folder, f"rank-{rank}").write_text(f"{layer.n} {layer.alpha!r}")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(main, (sys.argv[1],), nprocs=2)
