"""Train with FSDP2 on two processes, see that the result is that of one process, save, and resume.

    python examples/fsdp2.py                                     # starts its own processes, with gloo on the CPU
    torchrun --nproc-per-node 2 examples/fsdp2.py                # or under torchrun

MuonAdamW(model) needs no word about the sharding: parameters that are DTensors say how they are laid out. Each rank
keeps its shards of the momentum, the ranks exchange directions, and each orthogonalizes its share of the matrices.
"""

import argparse
import os
import tempfile
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from muonlab import MuonAdamW

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--processes", type=int, default=2, help="without torchrun")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch", type=int, default=64, help="examples a step; a multiple of the processes")
parser.add_argument("--width", type=int, default=50, help="need not be a multiple of the processes")
parser.add_argument("--depth", type=int, default=3)

# ------------------------------------------------------------------------------------------ a net, data, an optimizer


class Block(nn.Module):
    """A feed-forward layer beside a residual stream."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after this block, (B, width) as it came."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


def build(width: int, depth: int, seed: int) -> nn.Sequential:
    """Return a net; the same on every rank."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, width), *(Block(width) for _ in range(depth)))
    net.add_module("head", nn.Linear(width, 4))
    return net


def examples(step: int, num: int) -> tuple[Tensor, Tensor]:
    """Return points, (num, 8), and to which of four classes each belongs, (num,)."""
    x = torch.randn(num, 8, generator=torch.Generator().manual_seed(step))
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] * x[:, 2] > 0).long()


def make_optimizer(net: nn.Module) -> MuonAdamW:
    """Return the optimizer of a net, sharded or not."""
    return MuonAdamW(net, lr=0.02, adamw_lr=3e-3)


def train(net: nn.Module, optimizer: MuonAdamW, steps: range, batch: int, rank: int, num_ranks: int) -> list[float]:
    """Train on this rank's part of every batch; return the loss of the whole batch at each step."""
    losses = []
    for step in steps:
        x, y = (part.tensor_split(num_ranks)[rank] for part in examples(step, batch))
        loss = F.cross_entropy(net(x), y)
        loss.backward()  # FSDP averages the gradients over the ranks
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    mean = torch.stack(losses)
    if num_ranks > 1:
        dist.all_reduce(mean)
    return (mean / num_ranks).tolist()


# ------------------------------------------------------------------------------------------- what each process does


def work(rank: int, num_ranks: int, folder: str, args: argparse.Namespace) -> None:
    """Train in one process of `num_ranks`, compare, save and resume."""
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (num_ranks,))

    def build_sharded(seed: int) -> nn.Sequential:
        net = build(args.width, args.depth, seed)
        for module in net:
            fully_shard(module, mesh=mesh)
        return fully_shard(net, mesh=mesh)

    def say(words: str) -> None:
        if rank == 0:
            print(words, flush=True)

    first_half, second_half = range(args.steps // 2), range(args.steps // 2, args.steps)

    # --- sharded: half of the steps, save, the other half
    net = build_sharded(seed=0)
    optimizer = make_optimizer(net)  # after sharding, so that it has the shards
    losses = train(net, optimizer, first_half, args.batch, rank, num_ranks)
    model_state, optimizer_state = get_state_dict(net, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=f"{folder}/checkpoint")
    losses += train(net, optimizer, second_half, args.batch, rank, num_ranks)
    say(f"{num_ranks} processes: loss {losses[0]:.4f} -> {losses[-1]:.4f} in {args.steps} steps")

    # --- the same in one process, on the whole batches
    alone = build(args.width, args.depth, seed=0)
    losses_alone = train(alone, make_optimizer(alone), range(args.steps), args.batch, 0, 1)
    say(f"1 process:   loss {losses_alone[0]:.4f} -> {losses_alone[-1]:.4f}")
    pairs = zip(net.parameters(), alone.parameters(), strict=True)
    difference = max((sharded.full_tensor() - p).abs().max().item() for sharded, p in pairs)
    say(f"largest difference of a parameter: {difference:.1e}")

    # --- resume: another start, which the checkpoint replaces, and the second half again
    net = build_sharded(seed=1)
    optimizer = make_optimizer(net)
    model_state, optimizer_state = get_state_dict(net, optimizer)
    saved = {"model": model_state, "optimizer": optimizer_state}
    dcp.load(saved, checkpoint_id=f"{folder}/checkpoint")
    set_state_dict(net, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
    again = train(net, optimizer, second_half, args.batch, rank, num_ranks)
    difference = max(abs(a - b) for a, b in zip(again, losses[len(first_half) :], strict=True))
    say(f"resumed at step {second_half.start}: {len(again)} losses, largest difference {difference:g}")

    # A process that ends while gloo's threads still hold tensors may abort: github.com/pytorch/pytorch/issues/190489
    time.sleep(0.5)
    dist.destroy_process_group()


def start(rank: int, num_ranks: int, folder: str, args: argparse.Namespace) -> None:
    """Be one of the processes that this script has started itself."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num_ranks)
    work(rank, num_ranks, folder, args)


if __name__ == "__main__":
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "RANK" in os.environ:  # torchrun has started this process
            dist.init_process_group("gloo")
            folders = [folder]
            dist.broadcast_object_list(folders)  # that of rank 0
            work(dist.get_rank(), dist.get_world_size(), folders[0], args)
        else:
            mp.spawn(start, (args.processes, folder, args), nprocs=args.processes)
