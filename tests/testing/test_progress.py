import random

import pytest
import torch

from testing.specimens import Matrix, Plain, failures


class Ascends(Plain):
    def direction(self, gradient, state, group):
        return -super().direction(gradient, state, group)


class LeavesTheLast(Plain):
    def update(self, p, gradient, state, group):
        if p is not group["params"][-1]:
            super().update(p, gradient, state, group)


class Diverges(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        state["count"] = state.get("count", 0) + 1
        if state["count"] > 10:
            p.div_(0)


class DropsTheImaginaryPart(Plain):
    def direction(self, gradient, state, group):
        return super().direction(gradient, state, group).real.to(gradient.dtype)


class Rebinds(Plain):
    def update(self, p, gradient, state, group):
        p.data = p.data.clone()
        super().update(p, gradient, state, group)


class Noisy(Plain):
    noise = torch.Generator().manual_seed(0)

    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        p.add_(1e-5 * torch.randn(p.shape, generator=self.noise))


class DrawsFromTorch(Plain):
    def inspect(self):
        super().inspect()
        torch.rand(1)


class DrawsFromPython(Plain):
    def inspect(self):
        super().inspect()
        random.random()


class MixesMembers(Plain):
    """Takes equal shapes together and forgets which is which: all are given the mean."""

    def direction(self, gradient, state, group):
        alike = [p.grad for p in group["params"] if p.grad is not None and p.shape == gradient.shape]
        return super().direction(sum(alike) / len(alike), state, group)


class ReadsStorage(Plain):
    """Reads the gradient's memory as if it lay like a contiguous one."""

    def direction(self, gradient, state, group):
        raw = torch.as_strided(gradient, gradient.shape, torch.empty(gradient.shape).stride())
        return super().direction(raw, state, group)


class ViewsConvolutions(Matrix):
    def direction(self, gradient, state, group):
        if gradient.ndim == 4:
            gradient.view(len(gradient), -1)
        return super().direction(gradient, state, group)


class TakesTheLastBackward(Plain):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.last = {}
        for group in self.param_groups:
            for p in group["params"]:
                p.register_hook(lambda gradient, p=p: self.last.update({p: gradient.clone()}))

    def update(self, p, gradient, state, group):
        super().update(p, self.last.get(p, gradient), state, group)


@pytest.mark.parametrize(
    ("broken", "check", "others", "seen"),
    [
        (Ascends, "loss_falls", set(), "the loss of parameter 0 of shape (6, 4) went from"),
        (LeavesTheLast, "loss_falls", None, "parameter 5 of shape (2, 12) did not move in the first step"),
        (Diverges, "loss_falls", set(), "parameter 0 of shape (6, 4) has 24 NaN or Inf after step 11"),
        (Rebinds, "storage_kept", set(), "parameter 0 of shape (6, 4) lies elsewhere"),
        (Noisy, "deterministic", None, "the second run differs from the first: parameter 0 of shape (6, 4) moved by"),
        (DrawsFromTorch, "random_state_kept", set(), "torch's generator moved on"),
        (DrawsFromPython, "random_state_kept", set(), "Python's random moved on"),
        (MixesMembers, "members_apart", {"memory_layout"}, "the updates of parameter 0 of shape (6, 4) in company"),
        (ReadsStorage, "memory_layout", {"channels_last"}, "(contiguous, gradient transposed)"),
        (ViewsConvolutions, "channels_last", set(), "RuntimeError: view size is not compatible"),
        (TakesTheLastBackward, "accumulation", None, "against the sum at once: parameter 0 of shape (6, 4) moved by"),
    ],
)
def test_a_defect_of_the_update_is_found(broken, check, others, seen):
    found = failures(broken)
    assert seen in found[check]
    if others is not None:  # None: no defect that leaves all else right
        assert found.keys() - {check} <= others


def test_a_lost_imaginary_part_is_found():
    found = failures(DropsTheImaginaryPart, dtype=torch.complex64)
    assert set(found) == {"imaginary_part_falls"}
    assert found["imaginary_part_falls"].startswith("the imaginary part of the loss of parameter 0 of shape (6, 4)")
