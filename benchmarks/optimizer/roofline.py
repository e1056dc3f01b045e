"""What a step of an optimizer can at best take on a GPU, from its maker's data sheet: expected, not measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from muonlab.testing import Call

LAUNCH = 4e-6  # seconds that starting a kernel takes the host


@dataclass(frozen=True)
class GPU:
    """A device, dense bfloat16 with tensor cores and the memory's bandwidth."""

    name: str
    flops: float  # a second
    bandwidth: float  # bytes a second
    about: str


GPUS = (
    GPU("A100", 312e12, 2.039e12, "312 TFLOP/s in bfloat16, 2,039 GB/s (A100 80GB SXM, NVIDIA's data sheet)"),
    GPU("H100", 989e12, 3.35e12, "989 TFLOP/s in bfloat16, dense, 3.35 TB/s (H100 SXM, NVIDIA's data sheet)"),
    GPU("H200", 989e12, 4.8e12, "989 TFLOP/s in bfloat16, dense, 4.8 TB/s (H200 SXM, NVIDIA's data sheet)"),
)


def expected(calls: Sequence[Call], flops: float) -> dict[str, dict[str, float]]:
    """Return, for each GPU, milliseconds of a step, of what they consist, and the share of the peak.

    A call takes its FLOPs at the peak or its bytes at full bandwidth, whichever is longer; a step all calls one after
    the other, or the host's time to start the kernels if that is longer.

    Args:
        calls: of one step.
        flops: for the share of the peak, the same for all optimizers.
    """
    found = {}
    for gpu in GPUS:
        products = sum(max(call.flops / gpu.flops, call.num_bytes / gpu.bandwidth) for call in calls if call.flops)
        passes = sum(call.num_bytes / gpu.bandwidth for call in calls if not call.flops)
        launches = LAUNCH * sum(call.kernels for call in calls)
        seconds = max(products + passes, launches)
        found[gpu.name] = {
            "products_ms": 1e3 * products,
            "passes_ms": 1e3 * passes,
            "launches_ms": 1e3 * launches,
            "ms": 1e3 * seconds,
            "of_peak": flops / gpu.flops / seconds,
        }
    return found
