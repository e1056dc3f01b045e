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


def sparsemax_by_definition(z, label):
    """Martins & Astudillo 2016, eq. 16, with tau found by bracketing: sum max(z - tau, 0) = 1."""
    tau = brentq(lambda tau: np.maximum(z - tau, 0).sum() - 1, z.min() - 1, z.max(), xtol=1e-14, rtol=1e-14)
    support = z > tau
    return -z[label] + (z[support] ** 2 - tau**2).sum() / 2 + 0.5


def stablemax_by_definition(z, label):
    s = [x + 1 if x >= 0 else 1 / (1 - x) for x in z]
    return -np.log(s[label] / sum(s))


DEFINITIONS = {
    "softmax": lambda z, label: -np.log(np.exp(z[label]) / np.exp(z).sum()),
    "stablemax": stablemax_by_definition,
    "sparsemax": sparsemax_by_definition,
}


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
def test_one_loss_per_example_in_the_dtype_of_the_logits_which_stay_as_they_are(loss):
    logits, labels = draw(dtype=torch.float32)
    before, losses = logits.clone(), loss(logits, labels)
    assert (losses.shape, losses.dtype) == (labels.shape, torch.float32)
    assert torch.equal(logits, before)
    for k in range(len(labels)):
        torch.testing.assert_close(losses[k : k + 1], loss(logits[k : k + 1], labels[k : k + 1]))


@each_loss
@pytest.mark.parametrize("classes", [2, 97])
def test_no_overflow_for_huge_float32_logits_of_both_signs(loss, classes):
    size, generator = 1e4, torch.Generator().manual_seed(0)
    mixed = size * (2 * torch.rand(8, classes, generator=generator) - 1)
    ends = torch.full((3, classes), -size)
    ends[1], ends[2, 0] = size, size
    logits = torch.cat([mixed, ends])
    labels = torch.arange(len(logits)) % classes
    losses, slopes = loss(logits, labels), gradient(loss, logits, labels)
    torch.testing.assert_close(losses.double(), loss(logits.double(), labels), rtol=1e-5, atol=2e-6 * size)
    torch.testing.assert_close(slopes.double(), gradient(loss, logits.double(), labels), rtol=1e-4, atol=1e-3)


@each_loss
def test_training_pressure_remains_on_a_hopeless_float32_example(loss):
    logits, labels = torch.tensor([[-1e4, 1e4, 0.0]]), torch.tensor([0])
    slope = gradient(loss, logits, labels)[0]
    assert slope[0] < 0 < slope[1]


@each_loss
def test_a_stack_of_members_has_the_gradients_of_each_alone(loss):
    logits, labels = zip(*(draw(seed=k) for k in range(3)), strict=True)
    total = torch.func.grad(lambda z, y: loss(z, y).mean())
    together = torch.func.vmap(total)(torch.stack(logits), torch.stack(labels))
    for k in range(3):
        torch.testing.assert_close(together[k], gradient(loss, logits[k], labels[k]) / 6, rtol=0, atol=1e-14)


def test_stablemax_has_at_zero_the_slope_that_both_sides_tend_to():
    def slope(z):
        logits = torch.tensor([[z, 0.5, -2.0]], dtype=torch.float64)
        return gradient(stablemax, logits, torch.tensor([1]))[0, 0].item()

    expected = 1 / (1 + 1.5 + 1 / 3)  # s(0) = 1 and s'(0) = 1, so the slope is p of that class
    for z in (0.0, -0.0, -1e-9, 1e-9):
        assert slope(z) == pytest.approx(expected, abs=1e-12 if z == 0 else 1e-8)


def test_stablemax_has_slopes_where_the_other_branch_of_s_has_its_pole():
    logits, labels = torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    # s = 1/2, 2, 1 of a sum 7/2, and s' = 1/4, 1, 1
    expected = torch.tensor([[1 / 14, 2 / 7 - 1 / 2, 2 / 7]], dtype=torch.float64)
    torch.testing.assert_close(gradient(stablemax, logits, labels), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparsemax_is_exactly_zero_where_the_label_leads_by_one_and_positive_before(dtype):
    leads = torch.tensor([-1.0, 0.0, 0.5, 0.99, 1.0, 1.5, 1e4], dtype=dtype)
    logits = torch.tensor([[0.0, 0.0, -3.0, 0.0]], dtype=dtype).repeat(len(leads), 1)
    logits[:, 1] = leads
    labels = torch.ones(len(leads), dtype=torch.int64)
    losses = sparsemax(logits, labels)
    assert losses[4:].tolist() == [0, 0, 0]
    assert not gradient(sparsemax, logits, labels)[4:].any()
    assert (losses[:5].diff() < 0).all()


def test_the_loss_of_a_text_is_the_mean_over_its_tokens_and_that_of_a_class_is_as_it_is():
    logits, labels = draw(batch=15)
    assert softmax_per_example(logits, labels).equal(softmax(logits, labels))
    found = softmax_per_example(logits.view(3, 5, 5), labels.view(3, 5))
    torch.testing.assert_close(found, softmax(logits, labels).view(3, 5).mean(1))
