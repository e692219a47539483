"""Trains a small network on data that it makes, on one process or on many: the loss is the same.

It reads where it runs from the environment that `muster run` gives each task (MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK);
without that it is the only process.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SAMPLES = 512
STEPS = 40


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if world > 1:
        dist.init_process_group("gloo")
    inputs = torch.rand(SAMPLES, 8, dtype=torch.float64)
    wanted = torch.sin(inputs.sum(dim=1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    # Each process has an equal part of the data, so that the mean of the parts' gradients is the gradient of the whole.
    part = slice(rank * SAMPLES // world, (rank + 1) * SAMPLES // world)
    trained = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(trained(inputs[part]), wanted[part]).backward()
        optimizer.step()
    if rank == 0:
        with torch.no_grad():
            loss = nn.functional.mse_loss(model(inputs), wanted).item()
        print("loss %.9f after %d steps on %d processes" % (loss, STEPS, world), flush=True)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
