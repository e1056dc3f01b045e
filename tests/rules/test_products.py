"""Products of float32 matrices: which library computes them, whose setting it is, and that no digit is lost."""

import pytest
import torch

from muonlab.rules import products
from muonlab.rules.products import SETTING, fast_products, is_left_alone_by_mkl
from muonlab.train.sequential import Sequential

ZEN5 = "vendor_id\t: AuthenticAMD\nmodel\t\t: 2\nflags\t\t: fpu avx2 avx512f avx512_bf16"


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (ZEN5, True),
        (ZEN5.replace("avx512f avx512_bf16", ""), False),  # Zen 3: MKL uses all that there is
        (ZEN5 + " amx_tile amx_bf16", False),  # oneDNN would round
        (ZEN5.replace("AuthenticAMD", "GenuineIntel"), False),
        ("", False),  # no /proc
    ],
)
def test_the_processor_decides(processor, expected):
    assert is_left_alone_by_mkl(processor) is expected


def test_the_setting_is_given_back_and_a_users_own_is_left_alone(monkeypatch):
    monkeypatch.setattr(products, "pays", lambda: True)
    before = SETTING.fp32_precision

    def fail():
        with fast_products():
            with fast_products():
                assert SETTING.fp32_precision == "bf16"
            assert SETTING.fp32_precision == "bf16"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert SETTING.fp32_precision == before
    SETTING.fp32_precision = "tf32"
    try:
        with fast_products():
            assert SETTING.fp32_precision == "tf32"
    finally:
        SETTING.fp32_precision = before


# Bug: the setting that the block had inherited was written down as its own, and outlived a later change of oneDNN's.
def test_a_setting_for_all_of_onednn_is_left_alone_and_later_ones_count(monkeypatch):
    monkeypatch.setattr(products, "pays", lambda: True)
    whole = torch.backends.mkldnn
    before = whole.fp32_precision
    try:
        whole.fp32_precision = "ieee"
        with fast_products():
            assert SETTING.fp32_precision == "ieee"
        whole.fp32_precision = "bf16"
        assert SETTING.fp32_precision == "bf16"
    finally:
        whole.fp32_precision = before


def test_products_in_a_block_have_the_digits_of_float32():
    generator = torch.Generator().manual_seed(1)
    A, B = torch.randn(2, 3, 96, 96, generator=generator)
    with fast_products():
        found = torch.bmm(A, B.mT), A[0].mT @ B[0], torch.nn.functional.linear(A[0], B[0], A[1, 0])
    exact = torch.bmm(A.double(), B.double().mT), A[0].double().mT @ B[0].double()
    exact = (*exact, torch.nn.functional.linear(A[0].double(), B[0].double(), A[1, 0].double()))
    for own, oracle in zip(found, exact, strict=True):
        torch.testing.assert_close(own.double(), oracle, rtol=1e-5, atol=1e-5 * 96**0.5)


def test_an_optimizer_of_a_users_own_has_torchs_setting_and_the_net_the_fast_one(monkeypatch):
    monkeypatch.setattr(products, "pays", lambda: True)
    seen = {}

    class Seeing(torch.optim.SGD):
        def step(self, closure=None):
            seen["optimizer"] = SETTING.fp32_precision
            return super().step(closure)

    class Net(torch.nn.Linear):
        def forward(self, inputs):
            seen["net"] = SETTING.fp32_precision
            return super().forward(inputs)

    loss = torch.nn.CrossEntropyLoss(reduction="none")
    engine = Sequential(lambda: Net(3, 2), loss, lambda named: Seeing([p for _, p in named]), (0,))
    engine.step(torch.ones(1, 4, 3), torch.zeros(1, 4, dtype=torch.long), 0)
    assert seen == {"optimizer": SETTING.fp32_precision, "net": "bf16"}
