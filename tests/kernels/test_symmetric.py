"""The Triton kernel without a GPU: its numbers in Triton's interpreter, and its machine code for three of NVIDIA's.

`make triton` runs both; elsewhere they are skipped. The interpreter's products in bfloat16 are not those of a GPU.
"""

import os

import pytest
import torch

from cubins import compiled, usage

pytest.importorskip("triton")
from muonlab.kernels import symmetric  # needs Triton

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.skipif(not IS_INTERPRETED, reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 130, 70), (3, 1, 5), (1, 200, 150)])
def test_it_is_the_product_with_its_transpose(shape, dtype, tolerance):
    X = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = torch.full((shape[0], shape[1], shape[1]), torch.nan, dtype=dtype)
    symmetric.symmetric_product(X, out)
    expected = X.double() @ X.double().mT
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))
    upper = out.triu(symmetric.BLOCK)  # past the blocks of the diagonal: mirrored, not computed
    assert torch.equal(upper.mT, out.tril(-symmetric.BLOCK))


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(("capability", "instruction"), [(80, "mma.sync"), (90, "wgmma"), (100, "tcgen05.mma")])
def test_its_machine_code_uses_tensor_cores_and_spills_nothing(tmp_path, dtype, capability, instruction):
    types = {"X": f"*{dtype}", "out": f"*{dtype}", "rows": "i32", "columns": "i32"}
    types |= {"stride_matrix": "i64", "stride_row": "i32", "out_matrix": "i64", "out_row": "i32"}
    constants = {"BLOCK": symmetric.BLOCK, "DEPTH": symmetric.DEPTH}
    multiples = ("X", "out", "stride_row", "out_row")
    kernel = compiled(symmetric.kernel, types, constants, multiples, capability, symmetric.WARPS)
    assert instruction in kernel.asm["ptx"]
    assert usage(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}
