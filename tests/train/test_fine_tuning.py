import pytest
import torch
from torch import nn

from muonlab.losses import softmax
from muonlab.train.batches import Batches
from muonlab.train.fine_tuning import fine_tune, scores
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

STEPS = range(0, 61, 2)


def examples(seed, num_rows):
    """Two classes told by the first of twenty numbers, each row in five with the other's label."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_rows, 20, generator=generator, dtype=torch.float64)
    is_wrong = torch.rand(num_rows, generator=generator) < 0.2
    return inputs, ((inputs[:, 0] > 0) ^ is_wrong).long()


TRAIN, VALIDATION, TEST = examples(0, 24), examples(1, 300), examples(2, 300)


def draw():
    return Batches(*TRAIN, (0, 1), None)


def population(rates=(0.02, 0.002)):
    def factory(rate):
        return lambda named: torch.optim.Adam([p for _, p in named], lr=rate)

    net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 2))
    return Population(net, softmax, [factory(rate) for rate in rates], (0, 1), dtype=torch.float64)


def normed():
    net = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    return Sequential(net, softmax, lambda named: torch.optim.SGD(named, lr=0.3), (0, 1), dtype=torch.float64)


@pytest.mark.parametrize("build", [population, normed])
def test_a_member_that_overfits_is_left_as_a_plain_loop_leaves_it_at_its_best_step(make_context, build):
    engine, alone, batches = build(), build(), draw()
    found = fine_tune(
        engine, draw(), VALIDATION, TEST, STEPS, make_context(), pace=lambda step: 1 - step / 60, rows=100
    )
    expected = torch.zeros_like(found.validation_loss)
    for index, stop in enumerate(found.steps.tolist()):
        for step in range(max(0, stop - 2), stop):
            alone.step(*batches(step), step, 1 - step / 60)
        expected[:, index] = alone.evaluate(VALIDATION[0], VALIDATION[1].expand(2, -1))[0].mean(dim=1)
        losses, hits = alone.evaluate(TEST[0], TEST[1].expand(2, -1))
        weights = alone.tensors()
        for member in (found.best_step == stop).nonzero().flatten().tolist():
            torch.testing.assert_close(found.test_loss[member], losses[member].mean(), rtol=1e-9, atol=0)
            assert found.test_accuracy[member] == hits[member].double().mean()
            for name, each in engine.tensors().items():
                if name.startswith(("parameter/", "buffer/")):
                    torch.testing.assert_close(each[member], weights[name][member], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.validation_loss, expected, rtol=1e-9, atol=0)
    assert found.best_step.tolist() == found.steps[expected.argmin(dim=1)].tolist()
    assert found.is_last.tolist() == (found.best_step == 60).tolist()
    assert 0 < found.best_step[0] < 60, "this member should have overfitted"


def test_it_ends_when_no_member_has_improved_for_so_many_evaluations(make_context):
    whole = fine_tune(population(), draw(), VALIDATION, None, STEPS, make_context())
    for patience in (1, 3):
        found = fine_tune(population(), draw(), VALIDATION, None, STEPS, make_context(), patience=patience)
        idle, best, number = 0, torch.full((2,), torch.inf), 0
        while idle < patience and number < len(STEPS):
            losses = whole.validation_loss[:, number]
            idle = 0 if (losses < best).any() else idle + 1
            best, number = torch.minimum(best, losses), number + 1
        assert found.steps.tolist() == list(STEPS)[:number]


def test_a_member_that_diverges_keeps_its_best_evaluation_and_the_others_go_on(make_context):
    engine = population(rates=(0.02, 1e308))
    first = engine.tensors()
    found = fine_tune(engine, draw(), VALIDATION, TEST, STEPS, make_context())
    whole = fine_tune(population(), draw(), VALIDATION, TEST, STEPS, make_context())
    assert not found.validation_loss[1].isfinite().all()
    assert found.best_step.tolist() == [whole.best_step[0], 0]
    torch.testing.assert_close(found.test_loss[0], whole.test_loss[0])
    for name, tensor in engine.tensors().items():
        if name.startswith("parameter/"):
            assert tensor[1].equal(first[name][1])


def test_a_member_without_a_finite_loss_has_no_best_evaluation(make_context):
    engine = population()
    engine.parameters["0.weight"][1] = torch.nan
    found = fine_tune(engine, draw(), VALIDATION, TEST, STEPS, make_context())
    assert found.best_step[1] == -1
    assert found.test_loss.isnan().tolist() == found.test_accuracy.isnan().tolist() == [False, True]


def test_without_a_test_set_none_is_read(make_context):
    found = fine_tune(population(), draw(), VALIDATION, None, (0, 2), make_context())
    assert found.test_loss.isnan().all()
    assert found.test_accuracy.isnan().all()


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_scores_of_next_tokens_are_means_over_all_of_them(rows):
    def loss(logits, labels):
        return softmax(logits.flatten(0, 1), labels.flatten()).view(labels.shape).mean(1)

    net = nn.Sequential(nn.Embedding(5, 5))
    tokens = torch.randint(5, (7, 4), generator=torch.Generator().manual_seed(0))
    engine = Population(net, loss, lambda named: torch.optim.SGD(named, lr=1.0), (0, 1), dtype=torch.float64)
    losses, accuracies = scores(engine, (tokens, tokens), rows)
    for member in range(2):
        table = engine.parameters["0.weight"][member]
        assert accuracies[member] == (table[tokens].argmax(-1) == tokens).double().mean()
        expected = nn.functional.cross_entropy(table[tokens].flatten(0, 1), tokens.flatten())
        torch.testing.assert_close(losses[member], expected)
