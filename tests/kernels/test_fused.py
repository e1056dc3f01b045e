"""The Triton kernels around the iteration, without a GPU: as tests/kernels/test_symmetric.py does."""

import os

import pytest
import torch

from cubins import GPUS, compiled, usage

pytest.importorskip("triton")
from muonlab import Muon
from muonlab.kernels import fused  # needs Triton
from muonlab.rules import passes

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="needs TRITON_INTERPRET=1")
in_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3)])
# Of 1, 35 and 6,500 entries: less than a block, and blocks of which the last is not full.
with_shapes = pytest.mark.parametrize("shape", [(1, 1), (5, 7), (50, 130)])


def draw(shape, seed):
    """Return two parameters of one and of two matrices."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=generator) for count in (1, 2)]


@interpreted
@in_dtypes
@with_shapes
@pytest.mark.parametrize("nesterov", [False, True])
def test_before_is_the_average_and_what_is_orthogonalized(shape, dtype, tolerance, nesterov):
    momenta, grads = draw(shape, 0), draw(shape, 1)
    b, g = torch.cat(momenta).double(), torch.cat(grads).double()
    X = torch.full((3, *shape), torch.nan, dtype=dtype)
    made = torch.tensor(True)
    peaks = fused.before_(momenta, grads, X, momentum=0.9, nesterov=nesterov, finite=made)
    b = 0.9 * b + 0.1 * g
    direction = 0.9 * b + 0.1 * g if nesterov else b
    torch.testing.assert_close(torch.cat(momenta).double(), b, rtol=0, atol=1e-6)
    torch.testing.assert_close(X.double(), direction, rtol=0, atol=tolerance)
    torch.testing.assert_close(peaks.amax(1).double(), direction.abs().amax((1, 2)), rtol=0, atol=1e-6)


@interpreted
def test_before_leaves_all_as_it_is_where_the_gradient_is_not_finite():
    momenta, grads = draw((50, 130), 0), draw((50, 130), 1)
    grads[1][0, 3, 4] = torch.nan
    kept = [each.clone() for each in momenta]
    X = torch.full((3, 50, 130), torch.nan)
    fused.before_(momenta, grads, X, momentum=0.9, nesterov=True, finite=torch.tensor(False))
    assert all(map(torch.equal, momenta, kept))
    assert not X.any()


@interpreted
@in_dtypes
@with_shapes
def test_after_shrinks_and_updates(shape, dtype, tolerance):
    ps, O = draw(shape, 0), torch.cat(draw(shape, 1)).to(dtype)
    expected = 0.75 * torch.cat(ps).double() - 0.02 * 1.5 * O.double()
    fused.after_(ps, O, torch.tensor([0.75, 0.02]), 1.5)
    torch.testing.assert_close(torch.cat(ps).double(), expected, rtol=0, atol=1e-6)


@interpreted
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # of NumPy, which the interpreter computes with
def test_steps_of_muon_with_them_are_those_without(monkeypatch):
    ends, used, after_ = [], [], fused.after_
    monkeypatch.setattr(fused, "after_", lambda *given: used.append(given) or after_(*given))
    for kernels in (None, fused):
        monkeypatch.setattr(passes, "KERNELS", kernels)
        ps = [torch.nn.Parameter(p) for p in (*draw((20, 30), 0), *draw((30, 20), 1))]
        optimizer = Muon(ps, nonfinite="skip", capturable=True, weight_decay=0.1)
        for step in range(4):
            for number, p in enumerate(ps):
                p.grad = 1e-9 * draw(p.shape[1:], 10 * step + number)[p.shape[0] - 1]
            if step == 2:
                ps[1].grad[0, 0, 0] = torch.inf
            optimizer.step()
        ends.append([p.detach() for p in ps])
    assert len(used) == 8  # two shapes in each of four steps
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("name", ["before", "after"])
def test_their_machine_code_reads_four_numbers_at_once_and_spills_nothing(tmp_path, name, capability, dtype):
    types = {"momenta": "*i64", "grads": "*i64", "ps": "*i64", "X": f"*{dtype}", "O": f"*{dtype}", "peaks": "*fp32"}
    types |= {"finite": "*u8", "sizes": "*fp32", "size": "i32", "kept": "fp32", "factor": "fp32"}
    constants = {"BLOCK": fused.BLOCK, "ALIGNED": True} | ({"NESTEROV": True} if name == "before" else {})
    multiples = ("X" if name == "before" else "O", "size")
    kernel = compiled(getattr(fused, name), types, constants, multiples, capability, fused.WARPS)
    assert "ld.global.v4.b32" in kernel.asm["ptx"]
    assert usage(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}
