"""A function of tensors compiled ahead of time, kept on disk so that the next cell, or the next process, only loads it.

The program knows shapes and dtypes, but no learning rate, seed or data: those are its inputs. So one program serves all
cells of one net, loss and batch size, whatever their optimizers.
"""

import contextlib
import hashlib
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from muonlab.jobs.files import lock

Function = Callable[..., Sequence[Tensor]]


def folder() -> Path:
    """Return where programs are kept: MUONLAB_CACHE, or muonlab/ in the user's cache."""
    if own := os.environ.get("MUONLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muonlab"


def compiled(function: Function, example: Sequence[Tensor]) -> Function | None:
    """Return a compiled function, or None, with one line of warning, where that cannot be done.

    Compiling takes 12 to 30 seconds; a program that is on disk is loaded in one or two.

    Args:
        function: tensors -> tensors, pure; what it makes of other values must be found by the same operations.
        example: what it will be called with, as to shapes, dtypes and devices. It must be called with none else: that
            is not checked.
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
    beside = path.with_name(f".{path.stem}.{os.getpid()}.pt2")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own making
            exported = torch.export.export(graph, example, strict=False)
            torch._inductor.aoti_compile_and_package(exported, package_path=str(beside))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return _unpacked(path)


def _load(path: Path) -> Function | None:
    """Return the program that is on disk; None where there is none, or a torn one, which is taken away."""
    if not path.exists():
        return None
    try:
        return _unpacked(path)
    except RuntimeError:
        path.unlink()
        return None


def _unpacked(path: Path) -> Function:
    with _temporary_folder():
        return torch._inductor.aoti_load_package(str(path))


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Let torch unpack into a folder that is gone at once: what is loaded stays, and a kill would leave the rest."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
