"""How the members of an engine are computed: by a compiled program, or in stacks of how many."""

import time
import warnings

from torch import Tensor

from muonlab.jobs.clock import Clock
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

# Compiling takes 12 to 30 seconds and halves the time of a step; this is about a minute of eager steps on one core.
# FLOPs decide, not a clock (docs/design/same-bytes.md).
COMPILED_FROM = 1e13


def pays(compile: str, flops: float, device: str, *, num_jobs: int = 1) -> bool:
    """Return whether training is to be compiled.

    Args:
        compile: "always", "never", or "auto": on a CPU, where there is enough to do.
        flops: floating-point operations of the whole training.
        device: a torch device.
        num_jobs: about how many jobs of this size share the program, which is kept on disk.
    """
    return compile == "always" or (compile == "auto" and device == "cpu" and flops * num_jobs >= COMPILED_FROM)


def prepare(
    engine: Population | Sequential,
    batch: tuple[Tensor, Tensor],
    clock: Clock,
    *,
    is_compiled: bool,
    height: int | None,
) -> tuple[bool, int]:
    """Compile the gradient or choose the height of the stacks, and say so; return whether it was compiled, and height.

    A half-done job goes on as it began, with the height it had; unless the compiler has gone, which the log then says.
    """
    start = time.monotonic()
    if is_compiled:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            is_compiled = engine.compile(*batch)
        for warning in caught:
            clock.log(str(warning.message))
    if isinstance(engine, Sequential):
        how, chosen = "one member after the other", 1
    elif is_compiled:
        how, chosen = f"a compiled program, ready after {time.monotonic() - start:.1f} s", engine.gradients.height
    else:
        engine.gradients.height = chosen = height or engine.choose_height(*batch)
        how = f"stacks of {chosen} members"
    clock.log(f"trains with {how}")
    clock.note(is_compiled=is_compiled, height=chosen)
    return is_compiled, chosen
