"""Whether this machine has a device."""

import torch


def check_device(name: str) -> None:
    """Raise ValueError where torch cannot put a float64 tensor on the device of that name."""
    if name.startswith("mps"):
        raise ValueError(f"device={name} has no float64, which AdamW's step and the accuracies need; use cpu")
    try:
        torch.empty(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"]
        present += [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        raise ValueError(f"device={name} is not on this machine; there is {', '.join(present)}") from error
