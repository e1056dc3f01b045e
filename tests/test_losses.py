import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from muonlab.losses import LOSSES, softmax, softmax_per_example, sparsemax, stablemax

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def draw(batch=6, classes=5, *, seed=0, spread=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(batch, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (batch,), generator=generator)


def gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, labels).sum(), logits)[0]


def threshold(z):
    """Find tau with sum max(z - tau, 0) = 1 by bracketing: max(z - tau, 0) is the projection of z on the simplex."""
    return brentq(lambda tau: np.maximum(z - tau, 0).sum() - 1, z.min() - 1, z.max(), xtol=1e-14, rtol=1e-14)


def sparsemax_by_definition(z, label):
    """Martins & Astudillo 2016, eq. 16."""
    tau = threshold(z)
    support = z > tau
    return -z[label] + (z[support] ** 2 - tau**2).sum() / 2 + 0.5


def stablemax_by_definition(z, label):
    s = [x + 1 if x >= 0 else 1 / (1 - x) for x in z]
    return -np.log(s[label] / sum(s))


def softmax_by_definition(z, label):
    return -np.log(np.exp(z[label]) / np.exp(z).sum())


DEFINITIONS = {
    "softmax": softmax_by_definition,
    "stablemax": stablemax_by_definition,
    "sparsemax": sparsemax_by_definition,
}


def test_every_loss_has_its_definition_here():
    assert DEFINITIONS.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
@given(
    classes=st.integers(2, 12),
    spread=st.sampled_from([0.01, 0.3, 1.0, 3.0, 30.0]),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_equals_its_definition(name, classes, spread, shift, seed):
    logits, labels = draw(classes=classes, spread=spread, seed=seed)
    logits = logits + shift
    expected = [DEFINITIONS[name](z, y) for z, y in zip(logits.numpy(), labels.tolist(), strict=True)]
    actual = LOSSES[name](logits, labels)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-10)


@each_loss
def test_gradient_equals_finite_differences(loss):
    logits, labels = draw()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_())


@each_loss
def test_one_loss_per_example_in_the_dtype_of_the_logits(loss):
    logits, labels = draw(dtype=torch.float32)
    losses = loss(logits, labels)
    assert (losses.shape, losses.dtype) == (labels.shape, torch.float32)
    for k in range(len(labels)):
        torch.testing.assert_close(losses[k : k + 1], loss(logits[k : k + 1], labels[k : k + 1]))


@each_loss
def test_logits_are_not_changed(loss):
    logits, labels = draw()
    copy = logits.clone()
    loss(logits, labels)
    assert torch.equal(logits, copy)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=20, deadline=None)
def test_gradient_of_softmax_and_sparsemax_is_p_minus_one_at_the_label(seed, spread):
    logits, labels = draw(seed=seed, spread=spread)
    onehot = torch.nn.functional.one_hot(labels, logits.shape[-1])
    projected = [np.maximum(z - threshold(z), 0) for z in logits.numpy()]
    for loss, p in [(softmax, logits.softmax(-1)), (sparsemax, torch.from_numpy(np.stack(projected)))]:
        torch.testing.assert_close(gradient(loss, logits, labels), p - onehot, rtol=0, atol=1e-10)


@each_loss
@pytest.mark.parametrize("size", [1e3, 1e4])
@pytest.mark.parametrize("classes", [2, 97])
def test_no_overflow_for_huge_float32_logits_of_both_signs(loss, size, classes):
    generator = torch.Generator().manual_seed(0)
    mixed = size * (2 * torch.rand(8, classes, generator=generator) - 1)
    ends = torch.full((3, classes), -size)
    ends[1], ends[2, 0] = size, size
    logits = torch.cat([mixed, ends])
    labels = torch.arange(len(logits)) % classes
    losses, slopes = loss(logits, labels), gradient(loss, logits, labels)
    assert losses.isfinite().all()
    assert slopes.isfinite().all()
    exact = loss(logits.double(), labels)
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=2e-6 * size)
    torch.testing.assert_close(slopes.double(), gradient(loss, logits.double(), labels), rtol=1e-4, atol=1e-3)


@each_loss
def test_training_pressure_remains_on_a_hopeless_float32_example(loss):
    logits, labels = torch.tensor([[-1e4, 1e4, 0.0]]), torch.tensor([0])
    slope = gradient(loss, logits, labels)[0]
    assert slope[0] < 0 < slope[1]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_stablemax_has_at_zero_the_slope_that_both_sides_tend_to(zero):
    labels = torch.tensor([1])

    def slope(z):
        return gradient(stablemax, torch.tensor([[z, 0.5, -2.0]], dtype=torch.float64), labels)[0, 0].item()

    # s(0) = 1 and s'(0) = 1, so the slope is p of that class.
    assert slope(zero) == pytest.approx(1 / (1 + 1.5 + 1 / 3), abs=1e-12)
    for side in (-1e-9, 1e-9):
        assert slope(side) == pytest.approx(slope(zero), abs=1e-8)


def test_stablemax_has_slopes_where_the_other_branch_of_s_has_its_pole():
    logits, labels = torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    # s = 1/2, 2, 1 of a sum 7/2, and s' = 1/4, 1, 1
    expected = torch.tensor([[1 / 14, 2 / 7 - 1 / 2, 2 / 7]], dtype=torch.float64)
    torch.testing.assert_close(gradient(stablemax, logits, labels), expected)


def test_stablemax_at_all_zero_logits_has_the_gradient_of_softmax():
    logits, labels = torch.zeros(4, 7, dtype=torch.float64), torch.arange(4)
    torch.testing.assert_close(gradient(stablemax, logits, labels), gradient(softmax, logits, labels))


@pytest.mark.parametrize("loss", [softmax, sparsemax])
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_softmax_and_sparsemax_do_not_see_a_shift(loss, seed, shift):
    logits, labels = draw(seed=seed)
    torch.testing.assert_close(loss(logits + shift, labels), loss(logits, labels), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [1.0, 1.5, 1e4])
def test_sparsemax_is_exactly_zero_where_the_label_leads_by_one(lead, dtype):
    logits = torch.tensor([[0.0, lead, -3.0, 0.0]], dtype=dtype)
    assert sparsemax(logits, torch.tensor([1])).item() == 0
    assert not gradient(sparsemax, logits, torch.tensor([1])).any()


def test_sparsemax_is_positive_where_the_label_leads_by_less():
    logits = torch.tensor([[0.0, 0.99], [0.0, 0.5], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    losses = sparsemax(logits, torch.ones(4, dtype=torch.int64))
    assert (losses > 0).all()
    assert (losses.diff() > 0).all()


@each_loss
def test_a_stack_of_members_has_the_gradients_of_each_alone(loss):
    logits, labels = zip(*(draw(seed=k) for k in range(3)), strict=True)
    total = torch.func.grad(lambda z, y: loss(z, y).mean())
    together = torch.func.vmap(total)(torch.stack(logits), torch.stack(labels))
    for k in range(3):
        torch.testing.assert_close(together[k], gradient(loss, logits[k], labels[k]) / 6, rtol=0, atol=1e-14)


def test_the_loss_of_a_text_is_the_mean_over_its_tokens_and_that_of_a_class_is_as_it_is():
    logits, labels = draw(batch=15)
    assert softmax_per_example(logits, labels).equal(softmax(logits, labels))
    found = softmax_per_example(logits.view(3, 5, 5), labels.view(3, 5))
    torch.testing.assert_close(found, softmax(logits, labels).view(3, 5).mean(1))
