"""The optimizers that are compared, with the arguments that make them do the same work.

Five quintic steps with Jordan's coefficients, scale sqrt(max(1, rows / columns)) and decoupled decay, wherever these
can be chosen; `about` says what cannot be. The arguments were read in the source of timm 1.0.31,
pytorch_optimizer 4.1.0 and heavyball 3.2.1.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch.optim import Optimizer


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters that all contenders share."""

    lr: float = 0.02
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True


# One step from zero with this is minus the orthogonalized gradient, times the scale sqrt(max(1, rows / columns)).
BARE = Hyper(lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False)


def same(parameters: list) -> list:
    return parameters


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Stepped:
    """An optimizer that is stepped by another function than its own."""

    step: Callable[[], None]
    state: dict


def as_it_is(optimizer: Optimizer) -> Optimizer:
    return optimizer


def compiled(optimizer: Optimizer) -> Stepped:
    return Stepped(torch.compile(optimizer.step), optimizer.state)


def as_a_graph(optimizer: Optimizer) -> Stepped:
    from muonlab.optim.graphs import graphed

    return Stepped(graphed(optimizer), optimizer.state)


def with_fused_passes(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step whose passes around the iteration are the Triton kernels of muonlab."""
    from muonlab.kernels import fused
    from muonlab.rules import passes

    def fused_step() -> None:
        passes.KERNELS = fused
        try:
            step()
        finally:
            passes.KERNELS = None

    return fused_step


def with_fused(optimizer: Optimizer) -> Stepped:
    return Stepped(with_fused_passes(optimizer.step), optimizer.state)


def with_fused_as_a_graph(optimizer: Optimizer) -> Stepped:
    return Stepped(with_fused_passes(as_a_graph(optimizer).step), optimizer.state)


@dataclass(frozen=True)
class Contender:
    """An optimizer and how it is called. Functions are of a module, so that it can be sent to another process."""

    name: str
    package: str
    load: Callable[[], type]
    arguments: Callable[[Hyper], dict]
    about: str = ""
    takes_convolutions: bool = True  # otherwise they are flattened by hand, to 2-D parameters
    groups: Callable[[list], Sequence] = field(default=same)
    before_step: Callable[[], None] = field(default=nothing)
    is_compiled: bool = False
    wrap: Callable[[Optimizer], Optimizer | Stepped] = field(default=as_it_is)

    def build(self, parameters: list, hyper: Hyper) -> Optimizer | Stepped:
        self.before_step()
        return self.wrap(self.load()(self.groups(parameters), **self.arguments(hyper)))


# --- torch ------------------------------------------------------------------------------------------------------------


def load_torch() -> type:
    return torch.optim.Muon


def torch_arguments(hyper: Hyper) -> dict:
    return {
        "lr": hyper.lr,
        "weight_decay": hyper.weight_decay,
        "momentum": hyper.momentum,
        "nesterov": hyper.nesterov,
        "adjust_lr_fn": "original",
    }


TORCH = Contender(
    "torch.optim.Muon",
    "torch",
    load_torch,
    torch_arguments,
    "always bfloat16; 2-D only, convolutions are flattened by hand",
    takes_convolutions=False,
)

# --- muonlab ----------------------------------------------------------------------------------------------------------


def load_muonlab() -> type:
    from muonlab import Muon

    return Muon


def muonlab_arguments(hyper: Hyper, method: str, dtype: str) -> dict:
    return {**torch_arguments(hyper), "method": method, "ns_dtype": getattr(torch, dtype)}


def muonlab(method: str, dtype: str) -> Contender:
    if method == "exact" and dtype != "float64":
        dtype = "float32"  # eigenvalues are not computed in less
    arguments = partial(muonlab_arguments, method=method, dtype=dtype)
    return Contender(f"muonlab {method}", "muonlab", load_muonlab, arguments, f'method="{method}", ns_dtype={dtype}')


def captured_arguments(hyper: Hyper) -> dict:
    return {**muonlab_arguments(hyper, "auto", "bfloat16"), "capturable": True, "nonfinite": "skip"}


# --- dion ------------------------------------------------------------------------------------------------------------


def load_dion() -> type:
    from dion import Muon

    return Muon


def dion_arguments(hyper: Hyper) -> dict:
    return {"lr": hyper.lr, "mu": hyper.momentum, "weight_decay": hyper.weight_decay, "nesterov": hyper.nesterov}


# --- timm -------------------------------------------------------------------------------------------------------------


def load_timm() -> type:
    """Return timm's Muon, also where timm itself cannot be imported.

    `import timm` imports torchvision, and PyPI's torchvision for Linux is built for CUDA: beside a torch for the CPU
    its import fails ("operator torchvision::nms does not exist"), or is not there. timm/optim/muon.py needs torch
    alone, so it is imported without running timm/__init__.py.
    """
    try:
        from timm.optim import Muon
    except (RuntimeError, ImportError):
        empty = ("timm", "timm.optim")
        for name in empty:
            sys.modules[name] = importlib.util.module_from_spec(importlib.util.find_spec(name))
        Muon = importlib.import_module("timm.optim.muon").Muon
        for name in empty:
            del sys.modules[name]
    return Muon


def timm_arguments(hyper: Hyper, coefficients: str) -> dict:
    return {**torch_arguments(hyper), "ns_coefficients": coefficients}


def timm(name: str, coefficients: str, about: str) -> Contender:
    return Contender(name, "timm", load_timm, partial(timm_arguments, coefficients=coefficients), about)


# --- pytorch_optimizer ------------------------------------------------------------------------------------------------


def load_pytorch_optimizer() -> type:
    from pytorch_optimizer import Muon

    return Muon


def muon_group(parameters: list) -> list[dict]:
    return [{"params": parameters, "use_muon": True}]


def pytorch_optimizer_arguments(hyper: Hyper, method: str) -> dict:
    options = torch_arguments(hyper)
    del options["adjust_lr_fn"]  # use_adjusted_lr=False, the default, is torch's "original"
    return {**options, "ns_method": method}


def pytorch_optimizer(name: str, method: str, about: str) -> Contender:
    arguments = partial(pytorch_optimizer_arguments, method=method)
    return Contender(name, "pytorch_optimizer", load_pytorch_optimizer, arguments, about, groups=muon_group)


# --- heavyball --------------------------------------------------------------------------------------------------------

HEAVYBALL_MODE = "max-autotune-no-cudagraphs"  # its default


def load_heavyball() -> type:
    from heavyball import Muon

    return Muon


def heavyball_compile_mode(mode: str | None) -> None:
    import heavyball

    heavyball.utils.compile_mode = mode  # read at each call


def heavyball_arguments(hyper: Hyper) -> dict:
    return {
        "lr": hyper.lr,
        "betas": (hyper.momentum, 0.99),  # the second is not used by Muon
        "weight_decay": hyper.weight_decay,
        "nesterov": hyper.nesterov,
    }


def heavyball(name: str, mode: str | None, about: str) -> Contender:
    before = partial(heavyball_compile_mode, mode)
    return Contender(
        name, "heavyball", load_heavyball, heavyball_arguments, about, before_step=before, is_compiled=mode is not None
    )


# --- the floor: products alone ----------------------------------------------------------------------------------------


def products_alone(optimizer: Optimizer) -> Stepped:
    from optimizer.floor import ProductsAlone

    return Stepped(ProductsAlone(optimizer.step), optimizer.state)


FLOORS = (
    replace(
        muonlab("auto", "bfloat16"), name="products", about="those of muonlab auto, alone: no step", wrap=products_alone
    ),
    replace(TORCH, name="torch_products", about="those of torch.optim.Muon, alone: no step", wrap=products_alone),
)

# --- steps that are compiled or captured ------------------------------------------------------------------------------

WRAPPED = (
    replace(TORCH, name="torch_compiled", about="torch.compile(step)", is_compiled=True, wrap=compiled),
    *(
        replace(
            muonlab("auto", "bfloat16"), name=name, arguments=captured_arguments, about=about, is_compiled=True, wrap=by
        )
        for name, about, by in (
            ("muonlab_compiled", "capturable, torch.compile(step)", compiled),
            ("muonlab_graphed", "capturable, graphed(optimizer)", as_a_graph),
            ("muonlab_fused", "capturable, Triton kernels around the iteration", with_fused),
            ("muonlab_fused_graphed", "the same, graphed(optimizer)", with_fused_as_a_graph),
        )
    ),
)
DION = Contender(
    "dion",
    "dion",
    load_dion,
    dion_arguments,
    "pip install git+https://github.com/microsoft/dion.git; scale sqrt(rows / columns)",
    takes_convolutions=False,
)

# --- the list ---------------------------------------------------------------------------------------------------------

DEFAULT_PEERS = ("timm", "pytorch_optimizer", "heavyball")
PEERS = {
    peer.name: peer
    for peer in (
        *WRAPPED,
        *FLOORS,
        DION,
        timm("timm", "original", 'always bfloat16; ns_coefficients="original" (its default is "quintic": same cost)'),
        timm("timm_default", "quintic", "always bfloat16; its default coefficients, five different triples"),
        timm("timm_polar_express", "polar_express", "always bfloat16; the first five Polar Express steps"),
        pytorch_optimizer(
            "pytorch_optimizer", "newton_schulz", "always bfloat16; stacks equal shapes; overwrites the gradients"
        ),
        pytorch_optimizer(
            "pytorch_optimizer_gram",
            "gram_newton_schulz",
            "always float16 (Gram, one restart); overwrites the gradients",
        ),
        heavyball(
            "heavyball",
            None,
            "compiling switched off; bfloat16, rounded stochastically with torch's global generator; five fixed "
            "triples of coefficients; momentum g + ema(g); sets the gradients to None",
        ),
        heavyball("heavyball_compiled", HEAVYBALL_MODE, f"as it comes, torch.compile with {HEAVYBALL_MODE}"),
    )
}
