import pytest

from muonlab.train import preparation


@pytest.mark.parametrize(
    ("compile", "flops", "device", "expected"),
    [
        ("auto", 1e14, "cpu", True),
        ("auto", 1e12, "cpu", False),
        ("auto", 1e14, "cuda", False),
        ("never", 1e14, "cpu", False),
    ],
)
def test_by_itself_a_job_compiles_where_there_is_enough_to_do(compile, flops, device, expected):
    assert preparation.pays(compile, flops, device) is expected
