import numpy as np
import pytest
import torch
from torch import nn

from muonlab.data.dataset import Examples
from muonlab.studies.features.work.robustness import Judged, Robustness, corrupt_all, judge
from muonlab.studies.features.work.states import Subject, subject


@pytest.fixture(scope="module")
def measured(digits):
    torch.manual_seed(0)
    net = digits.build(digits.judged).eval()
    return subject(net, digits)


def test_loss_and_hits_of_tokens_are_means_over_the_tokens_of_an_example():
    table = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2], [3, 3, 3], [1, 0, 1], [2, 2, 2]])
    net = nn.Embedding(5, 4, _weight=table)
    inputs = torch.arange(12).view(4, 3) % 5
    found = judge(Subject(net, (), "", "", rows=3), Examples(inputs, labels))
    logits = table[inputs].double()
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item())
    torch.testing.assert_close(found.hits, (logits.argmax(-1) == labels).double().mean(1))
    assert found.accuracy == pytest.approx((logits.argmax(-1) == labels).double().mean().item())


def test_examples_average_to_the_accuracies(measured, digits, few):
    (found,) = corrupt_all([measured], digits, few)
    row, by_example = found.row(), found.by_example()
    assert len(by_example["clean_by_example"]) == len(by_example["corrupted_by_example"]) == 60
    assert np.mean(by_example["clean_by_example"]) == pytest.approx(row["clean_accuracy"])
    assert np.mean(by_example["corrupted_by_example"]) == pytest.approx(np.mean(list(row["accuracy"].values())))


def test_a_place_that_a_corruption_leaves_out_is_averaged_over_the_others():
    full, short = Judged(0.0, torch.tensor([1.0, 0.0, 1.0])), Judged(0.0, torch.tensor([0.0, 1.0]))
    found = Robustness(full, {"drop": [short], "case": [full]}).by_example()
    assert found["corrupted_by_example"] == [0.5, 0.5, 1.0]


def test_hidden_states_are_kept_at_the_margins_severity_alone_and_if_asked_for(measured, digits, few):
    one_severity = few.model_copy(update={"margin_severity": 2})
    steps = []
    (found,) = corrupt_all([measured], digits, one_severity, severities=(), advance=steps.append)
    assert found.corrupted == {}
    assert len(steps) == len(found.states["blocks.0"]) == 15
    (other,) = corrupt_all([measured], digits, one_severity, severities=(2,), keep_states=False)
    assert other.states == {}
    assert list(map(len, other.corrupted.values())) == [1] * 15
