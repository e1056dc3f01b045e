"""Each member stops at its own best look, is read on the test set there once, and keeps those weights."""

import pytest
import torch
from torch import nn

from muonlab.losses import softmax
from muonlab.measure.transfer import fine_tune
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

TURNS = (30.0, 55.0, 1000.0)  # the weight at which each member of the walk has its smallest loss


class Walk:
    """Members of one weight that goes up by the pace at every step; the loss of a row is (weight - turn)^2 + row."""

    def __init__(self, turns=TURNS, nan_from=None):
        self.turns = torch.tensor(turns)
        self.weight, self.count, self.other = torch.zeros(len(turns), 1), torch.zeros(len(turns)), torch.zeros(7)
        self.nan_from = nan_from or {}
        self.batches, self.read = [], []

    def __len__(self):
        return len(self.turns)

    def step(self, inputs, labels, step, pace):
        self.batches.append((step, inputs, labels, pace))
        self.weight = self.weight + pace
        self.count, self.other = self.count + 1, self.other + 1
        for member, first in self.nan_from.items():
            if step >= first:
                self.weight[member] = torch.nan

    def evaluate(self, inputs, labels):
        assert labels.shape[:2] == (len(self), len(inputs))
        self.read.append((len(inputs), float(inputs.max())))
        losses = (self.weight - self.turns[:, None]).square() + inputs
        is_near = (self.weight - self.turns[:, None]).abs() < labels.flatten(1)
        return losses, is_near.view(labels.shape)

    def tensors(self):
        return {"parameter/w": self.weight.clone(), "buffer/n": self.count.clone(), "state/w": self.other.clone()}

    def load(self, tensors):
        self.weight, self.count, self.other = (tensors[name] for name in ("parameter/w", "buffer/n", "state/w"))


VALIDATION = torch.zeros(5), torch.tensor([1, 10, 20, 30, 1000])
TEST = torch.full((4,), 9.0), torch.tensor([1, 1, 40, 2000])
LOOKS = range(10, 101, 10)


def draw(step):
    return torch.full((3, 2), float(step)), torch.full((3, 2), -step)


def walk(engine, **options):
    settings = {"budget": 100, "looks": LOOKS}
    return fine_tune(engine, draw, VALIDATION, TEST, **(settings | options))


def test_each_member_has_its_own_best_look_and_the_weights_and_the_test_of_it():
    engine = Walk()
    found = walk(engine)
    assert found.steps.tolist() == list(range(0, 101, 10))
    assert found.best_step.tolist() == [30, 50, 100]  # of 50 and 60, which are as good for the second, the first
    assert engine.weight.flatten().tolist() == [30, 50, 100]
    assert engine.count.tolist() == [30, 50, 100]
    assert engine.other.tolist() == [100] * 7
    assert found.test_loss.tolist() == [9, 25 + 9, 900**2 + 9]
    assert found.test_accuracy.tolist() == [1, 0.5, 0.25]
    assert found.is_last.tolist() == [False, False, True]
    assert found.diverged.tolist() == [False] * 3
    curve = [[(step - turn) ** 2 for step in found.steps.tolist()] for turn in TURNS]
    assert found.validation_loss.tolist() == curve
    distances = [[abs(step - turn) for step in found.steps.tolist()] for turn in TURNS]
    near = [[sum(each < label for label in VALIDATION[1].tolist()) / 5 for each in own] for own in distances]
    torch.testing.assert_close(found.validation_accuracy, torch.tensor(near, dtype=torch.float64))


def test_the_steps_have_the_batches_and_the_pace_of_their_number_and_the_test_set_is_read_once():
    engine = Walk()
    walk(engine, pace=lambda step: 2.0 - step / 100, looks=[3, 100])
    steps, inputs, labels, paces = zip(*engine.batches, strict=True)
    assert steps == tuple(range(100))
    assert [float(each[0, 0]) for each in inputs] == [-float(each[0, 0]) for each in labels] == list(range(100))
    assert paces == tuple(2.0 - step / 100 for step in range(100))
    assert [largest for _, largest in engine.read] == [0, 0, 0, 9]


def test_the_rows_that_are_evaluated_at_once_change_no_result_and_bound_the_work():
    whole = walk(Walk())
    for rows in (1, 3):
        engine = Walk()
        found = walk(engine, rows=rows)
        assert max(count for count, _ in engine.read) == rows
        for name in ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"):
            torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("patience", "last"), [(1, 70), (3, 90), (None, 100)])
def test_it_ends_when_no_member_has_improved_for_so_many_looks(patience, last):
    engine = Walk((30.0, 60.0))
    found = fine_tune(engine, draw, VALIDATION, TEST, budget=100, looks=LOOKS, patience=patience)
    assert found.steps.tolist() == list(range(0, last + 1, 10))
    assert found.validation_loss.shape == (2, len(found.steps))
    assert engine.batches[-1][0] == last - 1
    assert found.best_step.tolist() == engine.weight.flatten().tolist() == [30, 60]


def test_the_look_before_the_first_step_counts_and_without_a_test_set_none_is_read():
    engine = Walk((-5.0, 30.0))
    found = fine_tune(engine, draw, VALIDATION, None, budget=100, looks=LOOKS)
    assert found.best_step.tolist() == engine.weight.flatten().tolist() == [0, 30]
    assert found.test_loss.isnan().all()
    assert found.test_accuracy.isnan().all()
    assert {largest for _, largest in engine.read} == {0.0}  # the rows of the validation set


def test_a_member_that_diverges_keeps_its_best_look_or_has_none_and_the_others_go_on():
    engine = Walk((1000.0, 55.0, 30.0), nan_from={0: 25})
    engine.weight[2] = torch.nan
    found = walk(engine)
    assert found.diverged.tolist() == [True, False, True]
    assert found.best_step.tolist() == [20, 50, -1]
    assert engine.weight[:2].flatten().tolist() == [20, 50]
    assert found.test_loss[:2].tolist() == [980**2 + 9, 25 + 9]
    assert found.test_loss[2].isnan()
    assert found.test_accuracy[2].isnan()
    assert found.test_accuracy[:2].isfinite().all()
    assert found.is_last.tolist() == [False] * 3


def test_accuracy_on_next_tokens_is_the_mean_over_all_of_them():
    class Tokens(Walk):
        def evaluate(self, inputs, labels):
            losses, _ = super().evaluate(inputs, labels[..., 0])
            return losses, labels == self.weight[:, :, None]

    tokens = torch.tensor([[0, 1, 2], [10, 10, 0], [10, 3, 4], [5, 5, 5], [6, 6, 10]])
    found = fine_tune(Tokens(), draw, (VALIDATION[0], tokens), (VALIDATION[0], tokens), budget=10, looks=[10], rows=2)
    assert found.validation_accuracy.tolist() == [[2 / 15, 4 / 15]] * 3
    assert found.test_accuracy.tolist() == [4 / 15] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": []}, r"looks=\[\] do not increase .* such as \[50, 100\]"),
        ({"looks": [10, 90]}, "do not increase from 1 or more to the budget"),
        ({"looks": [50, 50, 100]}, "do not increase"),
        ({"looks": [0, 100]}, "do not increase"),
        ({"patience": 0}, "patience=0 is too small; expected at least 1"),
        ({"rows": 0}, "rows=0 is too small; expected at least 1"),
    ],
)
def test_an_impossible_plan_is_refused_before_the_first_step(options, message):
    engine = Walk()
    with pytest.raises(ValueError, match=message):
        walk(engine, **options)
    assert engine.batches == engine.read == []


def test_sets_without_rows_or_with_other_labels_are_refused():
    empty = VALIDATION[0][:0], VALIDATION[1][:0]
    with pytest.raises(ValueError, match="the validation set has 0 inputs and 0 labels"):
        fine_tune(Walk(), draw, empty, TEST, budget=1, looks=[1])
    with pytest.raises(ValueError, match="the test set has 4 inputs and 3 labels"):
        fine_tune(Walk(), draw, VALIDATION, (TEST[0], TEST[1][:3]), budget=1, looks=[1])


# -- with the engines of the laboratory -------------------------------------------------------------------------------


def examples(seed, num_rows):
    """Two classes told by the first of twenty numbers, each row in five with the other's label."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_rows, 20, generator=generator, dtype=torch.float64)
    is_wrong = torch.rand(num_rows, generator=generator) < 0.2
    return inputs, ((inputs[:, 0] > 0) ^ is_wrong).long()


def drawn(step):
    inputs, labels = examples(0, 24)
    return inputs.expand(2, -1, -1), labels.expand(2, -1)


def population():
    def factory(rate):
        return lambda named: torch.optim.Adam([p for _, p in named], lr=rate)

    net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 2))
    return Population(net, softmax, [factory(0.02), factory(0.002)], (0, 1), dtype=torch.float64)


def normed():
    net = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    return Sequential(net, softmax, lambda named: torch.optim.SGD(named, lr=0.3), (0, 1), dtype=torch.float64)


@pytest.mark.parametrize("build", [population, normed])
def test_a_member_that_overfits_is_left_as_a_plain_loop_leaves_it_at_its_best_step(build):
    validation, test, looks = examples(1, 300), examples(2, 300), list(range(2, 61, 2))
    engine = build()
    found = fine_tune(
        engine, drawn, validation, test, budget=60, looks=looks, pace=lambda step: 1 - step / 60, rows=100
    )
    alone = build()
    expected = torch.zeros_like(found.validation_loss)
    for index, stop in enumerate(found.steps.tolist()):
        if index:
            for step in range(stop - 2, stop):
                alone.step(*drawn(step), step, 1 - step / 60)
        expected[:, index] = alone.evaluate(validation[0], validation[1].expand(2, -1))[0].mean(dim=1)
        at_best = (found.best_step == stop).nonzero().flatten().tolist()
        losses, hits = alone.evaluate(test[0], test[1].expand(2, -1))
        weights = alone.tensors()
        for member in at_best:
            torch.testing.assert_close(found.test_loss[member], losses[member].mean(), rtol=1e-9, atol=0)
            assert found.test_accuracy[member] == hits[member].double().mean()
            for name, each in engine.tensors().items():
                if name.startswith(("parameter/", "buffer/")):
                    torch.testing.assert_close(each[member], weights[name][member], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.validation_loss, expected, rtol=1e-9, atol=0)
    assert found.best_step.tolist() == found.steps[expected.argmin(dim=1)].tolist()
    assert 0 < found.best_step[0] < 60, "this member should have overfitted"
    assert engine.evaluate(test[0], test[1].expand(2, -1))[0].mean(dim=1).tolist() == pytest.approx(
        found.test_loss.tolist()
    )
