import pytest
import torch
from torch import nn

from muonlab.testing.trial import (
    SHAPES,
    MismatchError,
    Record,
    Trial,
    advance,
    differences,
    expect_same,
    record,
    same,
)
from testing.specimens import Plain

CPU = torch.device("cpu")


def make(dtype=torch.float32, rtol=1e-3):
    return Trial(Plain, dtype, SHAPES, CPU, rtol, ())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_what_is_drawn_depends_on_the_seed_alone(dtype):
    state = torch.get_rng_state()
    drawn = make(dtype).draw((3, 2), 1)
    assert (drawn.dtype, drawn.shape) == (dtype, (3, 2))
    assert torch.equal(drawn, make(dtype).draw((3, 2), 1))
    assert not torch.equal(drawn, make(dtype).draw((3, 2), 2))
    assert torch.equal(state, torch.get_rng_state())


def test_real_dtypes_see_the_same_numbers():
    assert torch.equal(make(torch.float64).draw((4, 4), 0).float(), make().draw((4, 4), 0))


def test_no_two_gradients_of_a_history_are_alike():
    history = make().history(3)
    flat = [tuple(gradient.flatten()[:4].tolist()) for gradients in history for gradient in gradients]
    assert len(set(flat)) == 3 * len(SHAPES)


def test_parameters_are_copies_of_their_starts():
    start = torch.ones(2, 2)
    (p,) = make().parameters([start])
    nn.init.zeros_(p)
    assert torch.equal(start, torch.ones(2, 2))


def test_close_is_measured_against_the_update():
    start, expected = torch.full((4, 4), 100.0, dtype=torch.float64), torch.full((4, 4), 101.0, dtype=torch.float64)
    trial = make(torch.float64)
    trial.expect_close(expected + 0.0009, expected, start, "they")
    with pytest.raises(MismatchError, match=r"^they differ by 0.0044 in norm, of 4; 0.004 is allowed$"):
        trial.expect_close(expected + 0.0011, expected, start, "they")
    with pytest.raises(MismatchError):
        make().expect_close(torch.full((2, 2), torch.nan), torch.ones(2, 2), torch.zeros(2, 2), "they")


def test_same_means_to_the_bit():
    ones, nan = torch.ones(2), torch.tensor(torch.nan)
    for first, second in [(ones, torch.ones(2)), (nan, nan.clone()), ({"a": [ones, 1]}, {"a": [torch.ones(2), 1]})]:
        assert same(first, second)
    assert same((1, 2), [1, 2])
    others = [ones.double(), torch.ones(1, 2), 1.0, torch.zeros(2), {"a": ones}, "x"]
    assert not any(same(ones, other) for other in others)
    assert not same({"a": [ones, 1]}, {"a": [torch.zeros(2), 1]})
    assert not same({"a": 1}, {"b": 1})
    assert not same("x", "y")


def test_a_record_is_a_copy_and_makes_no_state():
    trial = make()
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    before = record(optimizer, params)
    assert len(optimizer.state) == 0
    advance(optimizer, params, trial.history(1))
    assert any("moved by" in words for words in differences(before, record(optimizer, params)))


def test_differences_are_told_in_words():
    one = Record([torch.zeros(2)], [{"step": torch.tensor(1), "old": 0}], [{"lr": 0.1}])
    other = Record([torch.ones(2)], [{"step": torch.tensor(1.0), "new": 0}], [{"lr": 0.2}])
    assert list(differences(one, other)) == [
        "parameter 0 of shape (2,) moved by 1",
        "'step' in the state of parameter 0 of shape (2,) changed from torch.int64 to torch.float32",
        "the state of parameter 0 of shape (2,) lost 'old'",
        "the state of parameter 0 of shape (2,) gained 'new'",
        "'lr' of group 0 was 0.1 and became 0.2",
    ]
    assert list(differences(one, one)) == []
    with pytest.raises(MismatchError, match=r"^later: parameter 0 of shape \(2,\) moved by 1 \(and 4 more differ"):
        expect_same(one, other, "later")
