"""Several processes: DistributedDataParallel, or fully sharded parameters.

    torchrun --nproc-per-node 2 -m examples.loops.with_torchrun
    torchrun --nproc-per-node 2 -m examples.loops.with_torchrun --sharded

Convert before wrapping: every process makes the same model from the same seed.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from examples.loops.task import accuracy, rewritten


def main() -> None:
    """Train on this process's share of the images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    model, digits = rewritten()
    if options.sharded:
        wrapped: nn.Module = fully_shard(model, mesh=init_device_mesh("cpu", (processes,)))
    else:
        wrapped = DistributedDataParallel(model)
    optimiser = torch.optim.Adam(wrapped.parameters(), lr=1e-3)
    for epoch in range(options.epochs):
        order = torch.randperm(len(digits.x), generator=torch.Generator().manual_seed(epoch))
        for batch in order[: len(order) // processes * processes].split(64 * processes):
            part = batch[rank::processes]
            loss = nn.functional.cross_entropy(wrapped(digits.x[part]), digits.y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    found = accuracy(wrapped, digits.test_x, digits.test_y)  # sharded: every process must call
    if rank == 0:
        print(f"accuracy: {found:.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
