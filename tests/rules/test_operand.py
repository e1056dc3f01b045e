import torch

from muonlab.rules.operand import operand


def test_a_tensor_takes_the_dtype_of_the_parameter():
    for dtype in [torch.float64, torch.float32, torch.bfloat16]:
        p = torch.ones(3, 2, 2, dtype=dtype)
        value = operand(torch.full((3, 1, 1), 0.1, dtype=torch.float64), p)
        assert (value * p).dtype == dtype


def test_a_number_and_a_float64_tensor_give_the_same_bits():
    p = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    lr = 0.1  # not a float32
    assert torch.equal(operand(lr, p) * p, operand(torch.full((1000,), lr, dtype=torch.float64), p) * p)
