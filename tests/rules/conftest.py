import pytest


@pytest.fixture(scope="session")
def run():
    """Return a function that applies a rule to one gradient after another."""

    def run(rule, p, grads, **hyper):
        state = rule.init(p)
        for grad in grads:
            p, state = rule.update(grad, state, p, **hyper)
        return p, state

    return run


@pytest.fixture(scope="session")
def run_torch():
    """Return a function that steps a torch optimizer through the same gradients."""

    def run_torch(optimizer, p, grads, **hyper):
        p = p.clone().requires_grad_()
        stepper = optimizer([p], **hyper)
        for grad in grads:
            p.grad = grad.clone()
            stepper.step()
        return p.detach()

    return run_torch
