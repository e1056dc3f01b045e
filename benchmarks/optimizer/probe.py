"""What a contender needs besides time, seen in a process of its own: readiness, kernel launches and memory.

In a process of its own because buffers that a package keeps at module level, and anything compiled, would otherwise be
there already from the set or the method before.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from torch.nn import Parameter
from torch.profiler import ProfilerActivity, profile, record_function

from muonlab.testing import count_launches
from optimizer import parameters
from optimizer.contenders import Contender
from optimizer.machine import synchronize
from optimizer.timing import Stepper

SECOND_STEP = "muonlab benchmark: second step"


def state_bytes(state) -> int:
    """Return the bytes of all tensors in an optimizer's state, however it is nested."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(state_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(state_bytes(value) for value in state)
    return 0


def peak_bytes(profiler: profile) -> int:
    """Return the most bytes that were alive during the second step, of those allocated since the profiler started."""
    events = profiler.profiler.kineto_results.events()
    window = next((e.start_ns(), e.end_ns()) for e in events if e.name() == SECOND_STEP)
    alive = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        if event.start_ns() > window[1]:
            break
        if event.start_ns() >= window[0]:
            peak = max(peak, alive)  # what was alive when the step began, and after each change
        alive += event.nbytes()
    return max(peak, alive)


def two_steps(contender: Contender, start: Sequence, gradients: Sequence, device: str) -> tuple[Stepper, dict]:
    """Return a contender after two steps, and the seconds of each; its making is part of the first."""
    stepper = Stepper(contender, start, gradients, [torch.empty_like(g) for g in gradients])
    first = stepper.build_seconds + stepper.step()[0] / 1e3
    with record_function(SECOND_STEP):
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        second = stepper.step()[0] / 1e3
    return stepper, {"first_step_seconds": first, "second_step_seconds": second}


def warm_up(device: str, dtype: torch.dtype) -> None:
    """Let torch and its libraries load what every contender needs: that is not part of anyone's first step."""
    p = Parameter(torch.randn(128, 256, device=device))
    p.grad = torch.randn_like(p)
    torch.optim.Muon([p]).step()
    torch.randn(256, 256, device=device).to(dtype).mm(torch.randn(256, 256, device=device).to(dtype))


def launches(stepper: Stepper, device: str) -> int | None:
    """Return the launches of one step; None if it is compiled, which the counter would undo."""
    stepper.prepare()
    if device.startswith("cuda"):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            stepper.optimizer.step()
            synchronize(device)
        on_device = (e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA)
        return sum(not e.is_user_annotation for e in on_device)
    if stepper.contender.is_compiled:
        return None
    return count_launches(stepper.optimizer.step).calls


def measure(contender: Contender, shapes: Sequence, device: str, dtype: str, threads: int, seed: int) -> dict:
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # what is compiled is compiled anew
    torch.set_num_threads(threads)
    contender.load()
    start, gradients = parameters.tensors(shapes, device, seed)
    warm_up(device, getattr(torch, dtype))
    size = sum(p.numel() * p.element_size() for p in start)
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated(device)
        stepper, seconds = two_steps(contender, start, gradients, device)
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            stepper, seconds = two_steps(contender, start, gradients, device)
        peak = peak_bytes(profiler)
    state = state_bytes(dict(stepper.optimizer.state))
    return {
        **seconds,
        "launches": launches(stepper, device),
        "state_bytes": state,
        "extra_bytes": peak - 2 * size - state,  # its parameters and gradients were allocated in the window, too
        "state_share": state / size,
        "extra_share": (peak - 2 * size - state) / size,
    }


def probe(contender: Contender, shapes: Sequence, *, device: str, dtype: str, threads: int, seed: int) -> dict:
    """Return readiness, launches and memory of one contender on one set, or its problem."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says that it starts and stops
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(measure, contender, shapes, device, dtype, threads, seed).result()
        except Exception as error:  # a peer's failure is a result, its process ending too
            return {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}
