"""Each measure can fail: on features, labels and matrices in which there is nothing to find, it finds nothing."""

import itertools

import pytest
import torch
from scipy import stats
from torch import nn

from muonlab.measure.features import gather
from muonlab.measure.margins import logit_margins, margins, summarise
from muonlab.measure.probes import Examples, probe

BITS, CUTS = 8, (0, 1200, 1600, 2000)


class Parity(nn.Module):
    """Counts the ones, and compares the count with each odd number: `after` holds a feature that is the parity."""

    def __init__(self):
        super().__init__()
        self.before = nn.Linear(BITS, BITS + 1)
        self.after = nn.ReLU()
        self.before.weight.data.fill_(1.0)
        self.before.bias.data.copy_(-torch.arange(0.0, BITS + 1))

    def forward(self, x):
        return self.after(self.before(x))


@pytest.fixture(scope="module")
def bits():
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(2, (CUTS[-1], BITS), generator=generator).float()
    return X, X.sum(1).long() % 2


def splits(features, labels):
    return [Examples(features[:, a:b], labels[a:b]) for a, b in itertools.pairwise(CUTS)]


def features_of(net, X):
    return gather(net, X.split(256), ["after"], pool="flatten")["after"][None]


def at_chance(accuracy, chance=0.5, num_examples=CUTS[3] - CUTS[2]):
    """Return whether guessing has such an accuracy within its central 99.8 %."""
    low, high = stats.binom.interval(0.998, num_examples, chance)
    return low <= round(accuracy * num_examples) <= high


def test_a_net_that_has_the_feature_is_told_from_a_random_net_of_its_shape(bits):
    X, y = bits
    made, random = Parity(), Parity()
    torch.manual_seed(1)
    random.before.reset_parameters()
    found = probe(*splits(torch.cat([features_of(made, X), features_of(random, X)]), y))
    assert found.test_accuracy[0] == 1
    assert at_chance(found.test_accuracy[1].item())
    test = splits(torch.cat([features_of(made, X), features_of(random, X)]), y)[2]
    of_both = margins(found.logits(test.features), test.labels, found.weights)
    for kind in (of_both.raw, of_both.by_norm, of_both.by_distance):
        assert summarise(kind, resamples=100).median.lower[0] > 0
        below_zero = (kind < 0).double().mean(1)
        assert below_zero[0] == 0
        assert at_chance(1 - below_zero[1].item())
    assert of_both.raw[1].median() < 0.05 * of_both.raw[0].median()


def test_shuffled_labels_are_at_chance(bits):
    X, y = bits
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    features = features_of(Parity(), X)
    assert at_chance(probe(*splits(features, shuffled)).test_accuracy.item())
    assert not at_chance(probe(*splits(features, y)).test_accuracy.item())


def test_a_probe_that_overfits_is_no_better_than_chance_where_it_was_not_fitted():
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(1, 600, 150, generator=generator), torch.randint(4, (600,), generator=generator)
    train, rest = Examples(X[:, :100], y[:100]), Examples(X[:, 100:350], y[100:350])
    test = Examples(X[:, 350:], y[350:])
    weak = probe(train, rest, test, strengths=(1.0, 10.0), bounds=(1.0, 10.0))
    assert (weak.logits(train.features).argmax(2) == train.labels).all()
    assert at_chance(weak.test_accuracy.item(), 0.25, 250)
    chosen = probe(train, rest, test)
    assert chosen.weights.norm() < 0.05 * weak.weights.norm()  # validation sees that nothing is there
    assert logit_margins(weak.logits(test.features), test.labels).median() < 0
