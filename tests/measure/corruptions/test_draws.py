import math

import pytest
import scipy.stats
import torch

from muonlab.measure.corruptions.draws import fold, mix, normal, uniform
from muonlab.nets import dropout


def correlation(one, other):
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()


def test_mix_is_the_hash_of_dropout():
    x = torch.cat([torch.arange(100), torch.arange(2**32 - 100, 2**32)])
    assert torch.equal(mix(x), dropout.mix(x))


def test_uniform_and_normal_numbers_are_distributed_so():
    keys = fold(torch.arange(20), 1)
    assert scipy.stats.kstest(uniform(keys, 0, 5000).flatten().numpy(), "uniform").pvalue > 0.01
    assert scipy.stats.kstest(normal(keys, 0, 5000).flatten().numpy(), "norm").pvalue > 0.01
    numbers = uniform(fold(torch.arange(64), 0), 0, 2**14)
    assert 0 < numbers.min() < 1e-5
    assert 1 - 1e-5 < numbers.max() < 1


def test_neighbours_within_a_draw_are_uncorrelated():
    numbers = uniform(fold(torch.arange(20), 0), 0, 64, 64)
    assert abs(correlation(numbers[..., 1:], numbers[..., :-1])) < 5 / math.sqrt(numbers.numel())
    assert abs(correlation(numbers[:, 1:], numbers[:, :-1])) < 5 / math.sqrt(numbers.numel())


@pytest.mark.parametrize(
    ("seeds", "label", "stream"),
    [((1, 2), 0, 0), ((2**32, 2**33), 0, 0), ((0, 1), 1, 0), ((0, 1), 0, 1)],
    ids=["seed", "upper half of the seed", "label", "stream"],
)
def test_other_keys_give_uncorrelated_numbers(seeds, label, stream):
    one = uniform(fold(torch.tensor([0, 1]), 0), 0, 20000)
    other = uniform(fold(torch.tensor(seeds), label), stream, 20000)
    assert abs(correlation(one, other)) < 5 / math.sqrt(40000)
    assert not (one.sort().values == other.sort().values).any()


def test_a_number_follows_from_its_own_key_and_place():
    keys = fold(torch.arange(10), 3)
    numbers = uniform(keys, 2, 4, 5)
    assert torch.equal(uniform(keys[3:4], 2, 4, 5)[0], numbers[3])
    assert torch.equal(uniform(keys, 2, 2, 5), numbers[:, :2])
