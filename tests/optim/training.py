"""Parameters, gradients and optimizers for the tests of this room."""

import torch
from torch import Tensor, nn

from muonlab import Muon, MuonAdamW
from muonlab.rules import muon

NOT_FOR = {  # what the battery leaves out for a reason of the dtype's
    torch.float32: {"imaginary_part_falls", "complex_phase", "small_updates"},
    torch.bfloat16: {"imaginary_part_falls", "complex_phase"},
    torch.float64: {"imaginary_part_falls", "complex_phase", "small_updates"},
    torch.complex64: {"gradient_scaler", "small_updates"},
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(draw(*shape, seed=seed, dtype=dtype))


def give(params, seed: int = 1) -> None:
    """Give every parameter a gradient of its own."""
    for number, p in enumerate(params):
        p.grad = draw(*p.shape, seed=1000 * seed + number, dtype=p.dtype)


def train(optimizer, params, num_steps: int = 3, first: int = 1) -> list[Tensor]:
    """Take steps with gradients that depend on the number of the step, and return copies of the parameters."""
    for step in range(first, first + num_steps):
        give(params, step)
        optimizer.step()
    return [p.detach().clone() for p in params]


def follow_the_rule(start: Tensor, gradients: list[Tensor], **hyper) -> Tensor:
    """Return the parameter that `rules.muon.update` makes of these gradients."""
    p, state = start, muon.init(start, variant=hyper.get("variant"))
    for gradient in gradients:
        p, state = muon.update(gradient, state, p, **hyper)
    return p


def muon_half(params, **options) -> MuonAdamW:
    """MuonAdamW of tensors, pairs or groups, all of which go to Muon."""
    return MuonAdamW(_grouped(params, "muon"), **{"lr": 0.02, **options})


def adamw_half(params, **options) -> MuonAdamW:
    """MuonAdamW of tensors, pairs or groups, all of which go to AdamW."""
    return MuonAdamW(_grouped(params, "adamw"), **{"adamw_lr": 0.02, **options})


def muon_alone(params, **options) -> Muon:
    return Muon(params, **{"lr": 0.02, **options})


def _grouped(params, rule: str) -> list:
    params = list(params)
    return params if isinstance(params[0], dict) else [{"params": params, "rule": rule}]
