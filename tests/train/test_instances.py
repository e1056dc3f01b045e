"""Any torch.optim.Optimizer in a population does to each member what it does in a plain loop."""

import pytest
import torch
from torch import nn

from muonlab.losses import softmax
from muonlab.optim.muonadamw import MuonAdamW
from muonlab.train import checkpoint
from muonlab.train.instances import Instances, views
from muonlab.train.population import Population

pytestmark = pytest.mark.kernels

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # as in test_population: sums in another order
SEEDS = (3, 4, 5)


class Odd(torch.optim.Optimizer):
    """State that torch would not bring back: numbers, a tuple, a wider tensor, a learning rate that it changes."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "schedule": lambda lr: 0.9 * lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = group["schedule"](group["lr"])
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("wide", torch.zeros_like(p, dtype=torch.float64)).lerp_(p.grad.double(), 0.3)
                state["count"] = state.get("count", 0) + 1
                state["last"] = (p.grad.norm().item(), *state.get("last", ())[:2])
                p -= (group["lr"] * sum(state["last"]) / state["count"] * state["wide"]).to(p.dtype)


class Rebinding(torch.optim.Optimizer):
    """Puts a new tensor in the place of the parameter's."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data = p.data - 0.1 * p.grad


class Noisy(torch.optim.Optimizer):
    """Draws from torch's global generator."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data -= 0.1 * (p.grad + torch.randn_like(p))


def tensors_of(named):
    return [p for _, p in named]


FACTORIES = {
    "radam": lambda named: torch.optim.RAdam(tensors_of(named), lr=0.02),
    "rprop": lambda named: torch.optim.Rprop(tensors_of(named)),
    "odd": lambda named: Odd(tensors_of(named)),
    "rebinding": lambda named: Rebinding(tensors_of(named)),
    "muonadamw": lambda named: MuonAdamW(named, lr=0.05, adamw_lr=0.02),
    "two": lambda named: [
        torch.optim.SGD([p for _, p in named if p.ndim == 2], lr=0.1, momentum=0.9),
        torch.optim.Adam([p for _, p in named if p.ndim == 1], lr=0.02),
    ],
}


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for each of the three members."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(3, 8, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(4, (3, 8), generator=generator)


def population(factory, seeds=SEEDS, dtype=torch.float64) -> Population:
    return Population(make_net(), softmax, factory, seeds, dtype=dtype)


def plain_loop(start: Population, member: int, factory, num_steps: int) -> dict[str, torch.Tensor]:
    """The loop that a user would write, from the weights of a member."""
    net = make_net().double()
    net.load_state_dict({name: p[member] for name, p in start.parameters.items()})
    made = factory(list(net.named_parameters()))
    for step in range(num_steps):
        inputs, labels = batch(step)
        net.zero_grad()
        softmax(net(inputs[member]), labels[member]).mean().backward()
        for optimizer in made if isinstance(made, list) else [made]:
            optimizer.step()
    return {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_members_equal_plain_loops_over_a_leaving_member_and_a_restart(factory, tmp_path):
    made = population(factory)
    expected = {member: plain_loop(made, member, factory, 9) for member in (0, 2)}
    for step in range(3):
        made.step(*batch(step), step)
    made.keep([0, 2])
    for step in range(3, 6):
        made.step(*(part[[0, 2]] for part in batch(step)), step)

    whole = population(factory)
    checkpoint.save(tmp_path / "state", made.tensors(), checkpoint.Progress(6, [0, 2], 0))
    (tmp_path / "metrics").touch()
    saved = checkpoint.load(tmp_path / "state", "cpu", whole.tensors(), tmp_path / "metrics")
    assert saved is not None
    whole.keep(saved[1].alive)
    whole.load(saved[0])
    for engine in (made, whole):
        for step in range(6, 9):
            engine.step(*(part[[0, 2]] for part in batch(step)), step)

    for name, p in made.parameters.items():
        assert torch.equal(p, whole.parameters[name])
        for position, member in enumerate((0, 2)):
            torch.testing.assert_close(p[position], expected[member][name], **TOLERANCE)


@pytest.mark.parametrize("name", ["odd", "muonadamw"])
def test_a_restart_in_float32_goes_on_with_the_same_bits(name):
    first, second = (population(FACTORIES[name], dtype=torch.float32) for _ in range(2))
    for step in range(6):
        if step == 3:
            second.load(first.tensors())
        for engine in (first, second)[: 1 if step < 3 else 2]:
            inputs, labels = batch(step)
            engine.step(inputs.float(), labels, step)
    assert all(torch.equal(p, second.parameters[name]) for name, p in first.parameters.items())


def test_hyper_parameters_may_differ_by_member():
    rates = (0.1, 0.01, 0.001)
    factories = [lambda named, lr=lr: torch.optim.RAdam(tensors_of(named), lr=lr) for lr in rates]
    made = population(factories)
    expected = [plain_loop(made, member, factories[member], 4) for member in range(3)]
    for step in range(4):
        made.step(*batch(step), step)
    for name, p in made.parameters.items():
        torch.testing.assert_close(p, torch.stack([alone[name] for alone in expected]), **TOLERANCE)


def test_the_noise_of_an_optimizer_is_its_members_own_and_that_of_its_step():
    def noisy(named):
        return Noisy(tensors_of(named))

    def still(logits, labels):
        return 0 * logits.sum(dim=1)

    def made(seeds):
        return Population(make_net(), still, noisy, seeds, dtype=torch.float64)

    together, alone, noise, before = made(SEEDS), made((4,)), [], torch.get_rng_state()
    for step in range(3):
        if step == 2:
            together.keep([1, 2])
        start = together.parameters["2.bias"].clone()
        inputs, labels = batch(step)
        together.step(inputs[-len(together) :], labels[-len(together) :], step)
        alone.step(inputs[1:2], labels[1:2], step)
        noise += list(start - together.parameters["2.bias"])
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(torch.allclose(noise[i], noise[j]) for i in range(len(noise)) for j in range(i))
    for name, p in together.parameters.items():
        torch.testing.assert_close(p[0], alone.parameters[name][0], **TOLERANCE)


def test_a_member_whose_gradient_its_optimizer_refuses_has_diverged_and_the_others_go_on():
    made, calm = population(FACTORIES["muonadamw"]), population(FACTORIES["muonadamw"])
    for step in range(3):
        inputs, labels = batch(step)
        calm.step(inputs, labels, step)
        if step == 1:
            inputs[1] = torch.inf
        made.step(inputs, labels, step)
    losses, _ = made.evaluate(batch(0)[0][0], batch(0)[1])
    assert losses.isfinite().all(dim=1).tolist() == [True, False, True]
    for name, p in made.parameters.items():
        assert torch.equal(p[[0, 2]], calm.parameters[name][[0, 2]])
        assert p[1].isnan().all()


STRANGER = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda named: torch.optim.LBFGS(tensors_of(named)), "LBFGS needs a closure .*; expected an optimizer whose"),
        (lambda named: torch.optim.SGD(STRANGER.parameters()), "of 2 tensors that are not the member's"),
        (lambda named: torch.optim.SGD(tensors_of(named)[1:]), "leaves out 0.weight; expected every parameter"),
        (lambda named: [torch.optim.SGD(tensors_of(named))] * 2, "gives 0.weight, .* to two optimizers"),
        ([FACTORIES["radam"]] * 2, "2 optimizer factories for 3 members; expected one, or one per member"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused_before_the_first_step(factory, message):
    with pytest.raises(ValueError, match=message):
        population(factory)


def test_state_that_a_checkpoint_cannot_hold_is_named():
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p])
    instances = Instances([{"p": p}], lambda named: optimizer, (0,))
    optimizer.state[p]["kind"] = {1, 2}
    with pytest.raises(ValueError, match="state/0/kind is a set, which a checkpoint cannot hold"):
        instances.tensors()


def test_gradients_may_be_written_to_also_those_that_are_expanded_or_of_two_parameters():
    class Writing(Rebinding):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.grad.mul_(2)
            super().step()

    # As torch.func returns that of parameters that are only ever added, and that of a sum: one number expanded.
    shared, expanded = torch.ones(1, 3), torch.ones(1, 1).expand(1, 3)
    stacks = {name: torch.zeros(1, 3) for name in "abc"}
    instances = Instances(views(stacks), lambda named: Writing(tensors_of(named)), (0,))
    instances.step_stacked(stacks, {"a": shared, "b": shared, "c": expanded}, 0)
    assert all(torch.allclose(p, torch.tensor(-0.2)) for p in stacks.values())


def slowing(step: int) -> float:
    return (1.0, 0.5, 0.25, 0.0, 0.7)[step]


PACED = {
    "sgd": lambda named: torch.optim.SGD(tensors_of(named), lr=0.1, momentum=0.9),
    "a tensor": lambda named: torch.optim.AdamW(tensors_of(named), lr=torch.tensor(0.02), foreach=False),
    "two groups": lambda named: torch.optim.SGD([{"params": [p], "lr": 0.1 / (1 + p.ndim)} for _, p in named]),
}


@pytest.mark.parametrize("factory", PACED.values(), ids=PACED)
def test_a_pace_is_a_scheduler_of_torch(factory):
    made, net = population(factory), make_net().double()
    net.load_state_dict({name: p[1] for name, p in made.parameters.items()})
    optimizer = factory(list(net.named_parameters()))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, slowing)
    for step in range(5):
        inputs, labels = batch(step)
        made.step(inputs, labels, step, slowing(step))
        net.zero_grad()
        softmax(net(inputs[1]), labels[1]).mean().backward()
        optimizer.step()
        if step < 4:
            scheduler.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(made.parameters[name][1], p.detach(), **TOLERANCE)


class Recording(torch.optim.SGD):
    """Remembers the learning rate of each step, and fails where that is asked for."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.seen, self.fails = [], False

    def step(self, closure=None):
        self.seen.append(self.param_groups[0]["lr"])
        if self.fails:
            raise RuntimeError("no such kernel")
        super().step()


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_the_learning_rate_is_the_same_object_after_a_paced_step_even_one_that_fails(rate):
    p = nn.Parameter(torch.ones(2))
    optimizer = Recording([p], rate)
    instances = Instances([{"p": p}], lambda named: optimizer, (0,))
    held, p.grad = optimizer.param_groups[0]["lr"], torch.ones(2)
    instances.step(0, 0)
    instances.step(0, 1, 0.5)
    optimizer.fails = True
    with pytest.raises(RuntimeError, match="no such kernel"):
        instances.step(0, 2, 0.25)
    assert [float(lr) for lr in optimizer.seen] == pytest.approx([0.1, 0.05, 0.025])
    assert optimizer.seen[0] is held is optimizer.param_groups[0]["lr"]
    assert float(held) == pytest.approx(0.1)


def test_an_optimizer_without_a_learning_rate_has_no_pace_but_one():
    made = population(FACTORIES["rebinding"])
    made.step(*batch(0), 0, 1.0)
    with pytest.raises(ValueError, match="Rebinding has parameter groups without a learning rate, which a pace"):
        made.step(*batch(1), 1, 0.5)
