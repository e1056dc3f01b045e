"""A function of tensors compiled ahead of time, kept on disk so that the next job, or the next process, only loads it.

The program knows shapes and dtypes, but no learning rate, seed or data: those are its inputs. So one program serves all
jobs of one net, loss and batch size, whatever their optimizers.
"""

import hashlib
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from muonlab.jobs.files import lock

Function = Callable[..., Sequence[Tensor]]

# F.one_hot reads its smallest entry, which neither a stack (without num_classes) nor a compiled program can do.
INSTEAD_OF_ONE_HOT = "(tokens.unsqueeze(-1) == torch.arange(num_classes, device=tokens.device)).float()"


def folder() -> Path:
    """Return where programs are kept: MUONLAB_CACHE, or muonlab/ in the user's cache."""
    if own := os.environ.get("MUONLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muonlab"


def compiled(function: Function, example: Sequence[Tensor]) -> Function | None:
    """Return a compiled function, or None, with one line of warning, where that cannot be done.

    Compiling takes 12 to 30 seconds; a program that is on disk is loaded in one or two.

    Args:
        function: tensors -> tensors, pure; on other values it must do the same operations.
        example: of the shapes, dtypes and devices that it will be called with, and only these: that is not checked.
    """
    example = tuple(example)
    try:
        graph = make_fx(function, tracing_mode="real")(*(tensor.clone() for tensor in example))
        path = folder() / f"{key(graph, example)}.pt2"
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_suffix(".lock"), wait=True):  # of the processes that want it, one compiles
            return _load(path) or _build(graph, example, path)
    except Exception as error:  # no compiler, a compiler that fails, a folder that cannot be used
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if "out of a tracing tensor" in reason:
            reason = (
                "the net or the loss takes a number out of a tensor (.item(), if and F.one_hot do that); write "
                f"torch.where, or in place of F.one_hot {INSTEAD_OF_ONE_HOT}"
            )
        warnings.warn(f"not compiled, and so slower: {reason}", stacklevel=2)
        return None


def key(graph: GraphModule, example: Sequence[Tensor]) -> str:
    """Return sixteen hexadecimal digits that follow from all that a program depends on."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    constants = [*graph.named_parameters(), *graph.named_buffers()]
    parts = [
        *(module.code for module in graph.modules() if isinstance(module, GraphModule)),
        *(f"{name} {_kind(tensor)} {tensor.tolist()}" for name, tensor in constants),
        *(_kind(tensor) for tensor in example),
        f"{torch.__version__} {pick_vec_isa()} {_processor()} {torch.get_num_threads()}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _kind(tensor: Tensor) -> str:
    return f"{tensor.shape} {tensor.stride()} {tensor.dtype} {tensor.device}"


def _processor() -> str:
    """Return what tells the instructions of this processor from those of another that may share the folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _build(graph: GraphModule, example: tuple[Tensor, ...], path: Path) -> Function:
    for left in path.parent.glob(f".{path.stem}.*.pt2"):  # by a process that was killed: the lock is held by this one
        left.unlink()
    part = path.with_name(f".{path.stem}.{os.getpid()}.pt2")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own making
            exported = torch.export.export(graph, example, strict=False)
            torch._inductor.aoti_compile_and_package(exported, package_path=str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return _unpacked(path)


def _load(path: Path) -> Function | None:
    """Return the program that is on disk; None where there is none, or a torn one, which is taken away."""
    try:
        return _unpacked(path) if path.exists() else None
    except RuntimeError:
        path.unlink()
        return None


def _unpacked(path: Path) -> Function:
    """Load a program by way of a temporary folder of its own: what torch unpacks it would leave behind."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        try:
            return torch._inductor.aoti_load_package(str(path))
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
