import pytest
import torch
import torch.nn.functional as F

from muonlab.studies.features.work.material import Probing, Set, example_loss


def test_the_first_examples_are_the_first_of_inputs_and_labels():
    examples = Set(torch.arange(10).view(5, 2), torch.arange(5))
    assert examples.first(2).inputs.tolist() == [[0, 1], [2, 3]]
    assert examples.first(2).labels.tolist() == [0, 1]
    assert len(examples.first(9).labels) == 5


def test_the_loss_of_an_example_is_the_cross_entropy_of_its_class():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 1, 1])
    expected = logits.double().logsumexp(1) - logits.double()[torch.arange(6), labels]
    torch.testing.assert_close(example_loss(logits, labels), expected.float())


def test_the_loss_of_a_text_is_the_mean_over_its_tokens():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 5, 4, generator=generator), torch.randint(4, (3, 5), generator=generator)
    expected = [F.cross_entropy(own, truth).item() for own, truth in zip(logits, labels, strict=True)]
    assert example_loss(logits, labels).tolist() == pytest.approx(expected)


def test_the_mask_says_which_tokens_are_real():
    none = Set(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    probing = Probing(none, none, none, pool="mean_tokens", rank_pool="last_token", padding=9)
    assert probing.mask(torch.tensor([[3, 0, 9], [9, 9, 9]])).tolist() == [[True, True, False], [False] * 3]
