"""Launches of one optimizer step on GPT-2-small, counted on device "meta", and a roofline of its FLOPs and bytes.

    pip install 'muonlab[bench]'
    python benchmarks/launches.py [--json] [--save FILE] [--peers timm,pytorch_optimizer,heavyball]

Counted: dispatched operations that compute (views and allocations left out, a foreach call is one), the kernels under
them as torch would cut them on a GPU, and matrix products. Nothing is timed: the roofline is what a step can at best
take on a GPU by the data sheets of its maker, expected and not measured.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from optimizer.contenders import DEFAULT_PEERS, PEERS, TORCH, Contender, Hyper, muonlab
from optimizer.parameters import quintic_operations, shapes
from optimizer.roofline import GPUS, expected
from optimizer.table import aligned
from torch.nn import Parameter

from muonlab import Muon, MuonAdamW
from muonlab.nets.gpt import GPT
from muonlab.rules import passes
from muonlab.testing import Call, list_calls

VOCABULARY = 50257  # of GPT-2
CAPTURABLE = {"capturable": True, "nonfinite": "skip"}


def on_meta(sizes) -> list[Parameter]:
    return [Parameter(torch.empty(size, device="meta")) for size in sizes]


def give(parameters) -> None:
    for p in parameters:
        p.grad = torch.empty_like(p)


def of_a_later_step(make, parameters) -> list[Call]:
    """Return the calls of the third step: the first makes the state."""
    optimizer = make(parameters)
    for _ in range(2):
        give(parameters)
        optimizer.step()
    give(parameters)
    return list_calls(optimizer.step)


def hidden_matrices(contender: Contender) -> list[Call]:
    return of_a_later_step(lambda parameters: contender.build(parameters, Hyper()), on_meta(shapes("gpt2")))


def whole_model(options: dict) -> list[Call]:
    with torch.device("meta"):
        model = GPT(VOCABULARY)
    return of_a_later_step(lambda _: MuonAdamW(model, **options), list(model.parameters()))


class Counted:
    """What `muonlab.kernels.fused` starts and moves, in its place: device "meta" runs no kernel."""

    ENTRIES = 2048  # of a block: `muonlab.kernels.fused.BLOCK`, which needs Triton

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def _count(self, name: str, *tensors) -> None:
        self.calls.append(Call(name, 1, 0, sum(each.numel() * each.element_size() for each in tensors)))

    def before_(self, momenta, grads, X, **_) -> torch.Tensor:
        peaks = X.new_empty(len(X), -(-X[0].numel() // self.ENTRIES), dtype=torch.float32)
        self._count("before", *momenta, *momenta, *grads, X, peaks)  # a momentum is read and written
        return peaks

    def after_(self, ps, O, sizes, factor) -> None:
        self._count("after", *ps, *ps, O, sizes)


def with_fused_passes(count: Callable[[], list[Call]]) -> list[Call]:
    """Return the calls of a step whose passes around the iteration are kernels."""
    passes.KERNELS = kernels = Counted()
    try:
        calls = count()
    finally:
        passes.KERNELS = None
    num_steps = 3  # of which the last is counted
    return calls + kernels.calls[-len(kernels.calls) // num_steps :]


class Both:
    """torch.optim's Muon and AdamW (whose fused kernel refuses device "meta"), as one would use them together."""

    def __init__(self, parameters):
        with torch.device("meta"):
            model = GPT(VOCABULARY)
        hidden = {id(p) for p in MuonAdamW(model).param_groups[0]["params"]}
        chosen = [id(p) in hidden for p in model.parameters()]
        muon, rest = ([p for p, is_hidden in zip(parameters, chosen, strict=True) if is_hidden == of] for of in (1, 0))
        self.halves = torch.optim.Muon(muon), torch.optim.AdamW(rest, foreach=True)

    def step(self) -> None:
        for half in self.halves:
            half.step()


def counted(peers: list[str]) -> dict[str, dict[str, dict | str]]:
    """Return the launches of each contender on the hidden matrices and on the whole model, or why there are none."""
    with torch.device("meta"):
        sizes = [p.shape for p in GPT(VOCABULARY).parameters()]
    of_hidden = {
        "muonlab": lambda: hidden_matrices(muonlab("auto", "bfloat16")),
        "muonlab, capturable": lambda: of_a_later_step(lambda ps: Muon(ps, **CAPTURABLE), on_meta(shapes("gpt2"))),
        "muonlab, fused passes": lambda: with_fused_passes(lambda: hidden_matrices(muonlab("auto", "bfloat16"))),
        "torch.optim.Muon": lambda: hidden_matrices(TORCH),
        **{name: lambda name=name: hidden_matrices(PEERS[name]) for name in peers},
    }
    of_model = {
        "muonlab": lambda: whole_model({}),
        "muonlab, capturable": lambda: whole_model(CAPTURABLE),
        "muonlab, fused passes": lambda: with_fused_passes(lambda: whole_model({})),
        "torch.optim: Muon, and AdamW(foreach=True)": lambda: of_a_later_step(Both, on_meta(sizes)),
    }
    found: dict[str, dict[str, dict | str]] = {}
    for title, contenders in (("72 hidden matrices", of_hidden), ("whole model", of_model)):
        found[title] = {}
        for name, make in contenders.items():
            try:
                found[title][name] = summed(make())
            except Exception as error:  # a peer may need values
                found[title][name] = f"{type(error).__name__}: {error}".splitlines()[0][:60]
    return found


def summed(calls: list[Call]) -> dict:
    """Return what is counted of a step and what is expected of it."""
    quintic = quintic_operations(shapes("gpt2"))
    return {
        "calls": len(calls),
        "kernels": sum(call.kernels for call in calls),
        "products": sum(call.flops > 0 for call in calls),
        "tflop": sum(call.flops for call in calls) / 1e12,
        "gb": sum(call.num_bytes for call in calls if not call.flops) / 1e9,
        "expected": expected(calls, quintic),
    }


COUNTED = ("calls", "kernels", "products")


def text(report: dict) -> str:
    parts = []
    for title, rows in report["launches"].items():
        seen = {name: row for name, row in rows.items() if isinstance(row, dict)}
        head = ("counted", *COUNTED, "TFLOP", "GB outside of products")
        cells = [
            (name, *(str(row[each]) for each in COUNTED), f"{row['tflop']:.2f}", f"{row['gb']:.1f}")
            for name, row in seen.items()
        ]
        parts.append(f"GPT-2-small, {title}\n{aligned(head, cells)}")
        parts += [f"{name}: not counted: {why}" for name, why in rows.items() if name not in seen]
        names = [gpu.name for gpu in GPUS]
        head = ("expected, not measured", *(f"{each}, ms" for each in names), *(f"of peak, {each}" for each in names))
        cells = []
        for name, row in seen.items():
            times = [row["expected"][each] for each in names]
            shares = [f"{each['of_peak']:.0%}" for each in times]
            cells.append((name, *(f"{each['ms']:.2f}" for each in times), *shares))
        parts.append(aligned(head, cells))
    parts.append(
        "Expected: each call at the peak or at full bandwidth, whichever is longer, or 4 us for each kernel if that\n"
        "is longer. Of peak: the FLOPs of torch's quintic on the hidden matrices over that time. Fused passes: the\n"
        "Triton kernels around the iteration, which no step uses yet, counted by what they are given."
    )
    parts += [f"{gpu.name}: {gpu.about}" for gpu in GPUS]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", help="write that JSON to a file as well")
    parser.add_argument("--peers", default=",".join(DEFAULT_PEERS), help=",".join(PEERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    launches = counted([name for name in options.peers.split(",") if name])
    report = {"torch": torch.__version__, "launches": launches}
    if options.save:
        Path(options.save).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if options.json else text(report))


if __name__ == "__main__":
    main()
