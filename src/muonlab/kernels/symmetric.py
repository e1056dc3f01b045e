"""X X^T of many matrices by the upper half of its blocks, the lower half mirrored: half of the operations.

Most products of an iteration of Muon are symmetric: X X^T, A A and W A W. No step uses this kernel yet: `make gpu`
measures it beside torch's product, and it is to stand there where that pays. What can be checked without a GPU is:
its numbers in Triton's interpreter, and the machine code for three generations of GPUs.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false

from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("muonlab.kernels needs Triton; expected after: pip install 'muonlab[cuda]'") from error

# Entries of a block's side and of a slice of the sum. With four warps registers are spilled.
BLOCK, DEPTH, WARPS = 64, 64, 8


@triton.jit
def kernel(
    X,
    out,
    rows,
    columns,
    stride_matrix,
    stride_row,
    out_matrix,
    out_row,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute a block of the upper half and store its mirror image too; a program for each block and matrix."""
    pair, matrix = tl.program_id(0), tl.program_id(1).to(tl.int64)
    # Blocks (i, j) with i <= j in the order (0, 0), (0, 1), (1, 1), (0, 2), ...; the root may be off by its rounding.
    j = ((tl.sqrt(8.0 * pair + 1.0) - 1.0) / 2.0).to(tl.int32)
    j = tl.where(j * (j + 1) // 2 > pair, j - 1, j)
    j = tl.where((j + 1) * (j + 2) // 2 <= pair, j + 1, j)
    i = pair - j * (j + 1) // 2
    here, there = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    X += matrix * stride_matrix
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, columns, DEPTH):
        k = (start + tl.arange(0, DEPTH))[None, :]
        left = tl.load(X + here[:, None] * stride_row + k, mask=(here[:, None] < rows) & (k < columns), other=0.0)
        right = tl.load(X + there[:, None] * stride_row + k, mask=(there[:, None] < rows) & (k < columns), other=0.0)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
    result = total.to(out.dtype.element_ty)
    out += matrix * out_matrix
    is_inside = (here[:, None] < rows) & (there[None, :] < rows)
    tl.store(out + here[:, None] * out_row + there[None, :], result, mask=is_inside)
    if i != j:
        tl.store(out + there[None, :] * out_row + here[:, None], result, mask=is_inside)


def symmetric_product(X: Tensor, out: Tensor) -> Tensor:
    """Put X X^T, summed in float32, into out and return it.

    Args:
        X: (k, rows, columns), float32, float16 or bfloat16, with contiguous rows.
        out: (k, rows, rows), of that dtype, with contiguous rows.
    """
    assert X.stride(-1) == out.stride(-1) == 1
    count, rows, columns = X.shape
    num = triton.cdiv(rows, BLOCK)
    strides = X.stride(0), X.stride(1), out.stride(0), out.stride(1)
    grid = (num * (num + 1) // 2, count)
    kernel[grid](X, out, rows, columns, *strides, BLOCK=BLOCK, DEPTH=DEPTH, num_warps=WARPS)
    return out
