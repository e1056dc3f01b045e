"""Member k of a population is the run that it would be alone, and that run is what a plain torch loop makes of it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from muonlab.losses import LOSSES, softmax
from muonlab.nets.transformer import Transformer
from muonlab.rules import adamw, muon, sgd
from muonlab.train import checkpoint
from muonlab.train.by_rule import Treatment
from muonlab.train.optimizers import factories
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

pytestmark = pytest.mark.kernels

# In float64 a member differs from itself alone by rounding only: a matrix product may sum in another order when the
# stack has another height (docs/design/same-bytes.md). Some steps let that grow to well under this.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}
IN_FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # over some steps: alone, a member's batch lies elsewhere in memory
EXACT = {"rtol": 0, "atol": 0}
V, C, T, B = 9, 5, 4, 8
SEEDS = (3, 4, 5)
HYPER = {
    "muon": (muon, {"lr": 0.02, "weight_decay": 0.01}),
    "adamw": (adamw, {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 0.01}),
    "sgd": (sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
}
every_optimizer = pytest.mark.parametrize("optimizer", HYPER)


def transformer(**options):
    return Transformer(V, C, **{"depth": 2, "width": 16, "heads": 2, "ff_width": 16, "dropout": 0.3, **options})


def by_rule(name, net=None, lr=None):
    """Muon for matrices of blocks and AdamW for all else; or one rule for all."""
    rule, hyper = HYPER[name]
    one = Treatment(rule, hyper if lr is None else {**hyper, "lr": lr})
    rest = Treatment(adamw, {"lr": 1e-3}) if name == "muon" else one
    named = (net or transformer()).named_parameters()
    return {each: one if each.startswith("blocks.") and p.ndim == 2 else rest for each, p in named}


def batch(step, members=(0, 1, 2)):
    """Tokens (S, B, T) and labels (S, B) of these members in a step."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(V, (3, B, T), generator=generator)
    return tokens[list(members)], (tokens[..., 0] % C)[list(members)]


def population(optimizer, seeds=SEEDS, net=transformer, loss=softmax, dtype=torch.float64, **options):
    return Population(net, loss, optimizer, seeds, dtype=dtype, **options)


def train(engine, steps, members=(0, 1, 2), batches=batch):
    for step in steps:
        engine.step(*batches(step, members), step)
    return engine


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


# ---- a population


@pytest.mark.parametrize(
    ("optimizer", "loss"), [("muon", loss) for loss in LOSSES] + [("adamw", "softmax"), ("sgd", "softmax")]
)
def test_a_population_is_its_members_trained_one_after_the_other_and_each_alone(optimizer, loss):
    engines = [
        kind(transformer, LOSSES[loss], by_rule(optimizer), SEEDS, dtype=torch.float64)
        for kind in (Population, Sequential)
    ]
    assert_same(engines[1].parameters, engines[0].parameters, **EXACT)
    for engine in engines:
        train(engine, range(4))
        engine.keep([0, 2])
        train(engine, range(4, 7), (0, 2))
        assert len(engine) == 2
    together, one_by_one = engines
    assert_same(one_by_one.parameters, together.parameters, **TOLERANCE)
    alone = train(population(by_rule(optimizer), SEEDS[2:], loss=LOSSES[loss]), range(7), (2,))
    assert_same({name: p[1:] for name, p in together.parameters.items()}, alone.parameters, **TOLERANCE)
    tokens, labels = batch(9, (0, 2))
    for found, expected in zip(*(engine.evaluate(tokens[0], labels) for engine in engines), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("net", [{"gated": False}, {"norm": "none"}, {"causal": False}, {"depth": 1, "dropout": 0}])
def test_a_member_equals_the_run_made_alone_for_every_net(net):
    def build():
        return transformer(**net)

    optimizer = by_rule("muon", build())
    together = train(population(optimizer, net=build), range(5))
    alone = train(population(optimizer, (4,), net=build), range(5), (1,))
    assert_same({name: p[1:2] for name, p in together.parameters.items()}, alone.parameters, **TOLERANCE)


def test_a_population_of_learning_rates_is_its_members_trained_one_after_the_other():
    optimizer = by_rule("muon", lr=torch.tensor([0.01, 0.05], dtype=torch.float64))
    one = [
        train(kind(transformer, softmax, optimizer, (4, 4), dtype=torch.float64), range(4), (0, 0))
        for kind in (Population, Sequential)
    ]
    assert_same(one[1].parameters, one[0].parameters, **TOLERANCE)
    first, second = one[1].parameters["blocks.0.attention.out.weight"]
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_member_equals_a_plain_loop_with_torch_optim(optimizer):
    def build():
        return transformer(dropout=0.0)

    made, net = population(by_rule(optimizer), net=build), build().double()
    net.load_state_dict({name: p[1] for name, p in made.parameters.items()})
    if optimizer == "adamw":
        peer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    else:
        peer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(6):
        tokens, labels = batch(step)
        made.step(tokens, labels, step)
        peer.zero_grad()
        softmax(net(tokens[1]), labels[1]).mean().backward()
        peer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(made.parameters[name][1], p.detach(), **TOLERANCE)


def test_members_draw_dropout_noise_of_their_own_and_of_each_step():
    still = {name: Treatment(sgd, {"lr": 0.0, "momentum": 0.0}) for name, _ in transformer().named_parameters()}
    made, seen, before = population(still, (3, 4)), [], torch.get_rng_state()
    made.parameters = {name: p[:1].expand_as(p).clone() for name, p in made.parameters.items()}
    for step in (0, 1):
        made.step(*batch(0, (0, 0)), step)
        seen += list(made.optimizer.states["head.weight"]["momentum"])  # lr 0 and momentum 0: the last gradient
    assert not any(torch.equal(seen[i], seen[j]) for i in range(4) for j in range(i))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_in_eval_mode_over_all_rows():
    made, net = population(by_rule("sgd"), (3, 4)), transformer().double().eval()
    tokens = torch.randint(V, (300, T), generator=torch.Generator().manual_seed(0))  # more than one chunk
    labels = tokens[:, 0] % C
    losses, hits = made.evaluate(tokens, labels.expand(2, -1))
    for member in range(2):
        logits = functional_call(net, {name: p[member] for name, p in made.parameters.items()}, (tokens,))
        torch.testing.assert_close(losses[member], softmax(logits, labels))
        assert torch.equal(hits[member], logits.argmax(dim=1) == labels)


@every_optimizer
def test_a_population_goes_on_from_its_tensors_bit_for_bit(optimizer):
    first, second = (population(by_rule(optimizer), dtype=torch.float32) for _ in range(2))
    held = train(first, range(3)).tensors()
    copies = {name: tensor.clone() for name, tensor in held.items()}
    second.load(held)
    for made in (first, second):
        train(made, range(3, 6))
    assert_same(second.tensors(), first.tensors(), **EXACT)
    assert_same(held, copies, **EXACT)


@pytest.mark.parametrize(("optimizer", "height"), [("muon", 1), ("adamw", 2)])
def test_many_steps_are_those_of_the_plain_module_at_any_height(optimizer, height):
    made = population(by_rule(optimizer), (3, 4))
    made.gradients.height = height
    plain = transformer()
    plain.shortcuts = False
    reference = Sequential(plain, softmax, by_rule(optimizer), (3, 4), dtype=torch.float64)
    for engine in (made, reference):
        train(engine, range(20), (0, 1))
    for name, p in reference.parameters.items():
        torch.testing.assert_close(made.parameters[name], p, rtol=1e-9, atol=1e-9 * p.abs().max().item())


def images(step, members=(0, 1)):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(2, 6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return inputs[list(members)], torch.randint(3, (2, 6), generator=generator)[list(members)]


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, (3, 2), stride=2), nn.Flatten(), nn.Linear(30, 3)
    )


def test_muon_on_convolutions_is_the_rule_on_their_matrices_in_a_plain_loop_over_paces_and_a_restart():
    lr = torch.tensor([0.1, 0.02], dtype=torch.float64)
    kernels, rest = Treatment(muon, {"lr": lr}, flatten=True), Treatment(adamw, {"lr": lr / 10})
    optimizer = {name: kernels if p.ndim > 1 else rest for name, p in convolutions().named_parameters()}
    made, alone, again = (
        kind(convolutions(), softmax, optimizer, (3, 4), dtype=torch.float64)
        for kind in (Population, Sequential, Sequential)
    )
    plain = {name: p[1].clone().requires_grad_() for name, p in made.parameters.items()}
    seen = {name: p.detach().flatten(1) if p.ndim > 1 else p.detach() for name, p in plain.items()}
    states = {name: (muon if p.ndim > 1 else adamw).init(p) for name, p in seen.items()}
    for step, pace in enumerate((1.0, 0.5, 0.0, 0.25)):
        if step == 2:
            again.load(alone.tensors())
        for engine in (made, alone) if step < 2 else (made, alone, again):
            engine.step(*images(step), step, pace)
        inputs, labels = images(step)
        loss = softmax(functional_call(convolutions(), plain, (inputs[1],)), labels[1]).mean()
        gradients = torch.autograd.grad(loss, list(plain.values()))
        for (name, p), gradient in zip(plain.items(), gradients, strict=True):
            rule, rate = (muon, 0.02) if p.ndim > 1 else (adamw, 0.002)
            seen[name], states[name] = rule.update(
                gradient.view_as(seen[name]), states[name], seen[name], lr=rate * pace
            )
            p.data = seen[name].view(p.shape)
    for name, p in plain.items():
        torch.testing.assert_close(made.parameters[name][1], p.detach(), **TOLERANCE)
    assert_same(alone.parameters, made.parameters, **TOLERANCE)
    assert_same(again.tensors(), alone.tensors(), **EXACT)


# ---- one member after the other: any module, with noise and buffers that change


def noisy():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def rows(step, members=(0, 1, 2)):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(3, 8, 3, generator=generator)
    return inputs[list(members)], torch.randint(4, (3, 8), generator=generator)[list(members)]


OPTIMIZERS = {"sgd": torch.optim.SGD, "radam": torch.optim.RAdam, "rprop": torch.optim.Rprop}


def sequential(name="sgd", seeds=SEEDS, net=noisy):
    return Sequential(net, softmax, factories(OPTIMIZERS[name], (0.05,) * len(seeds)), seeds)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_equal_a_plain_loop_with_batch_norm(name):
    def build():
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    engine, net = sequential(name, net=build), build()
    net.load_state_dict({n: each[1] for n, each in (engine.parameters | engine.buffers).items()})
    optimizer = OPTIMIZERS[name](net.parameters(), lr=0.05)
    for step in range(5):
        inputs, labels = rows(step)
        optimizer.zero_grad()
        softmax(net(inputs[1]), labels[1]).mean().backward()
        optimizer.step()
        train(engine, [step], batches=rows)
        engine.evaluate(inputs[0], labels)  # changes nothing
    assert_same({n: e[1] for n, e in (engine.parameters | engine.buffers).items()}, net.state_dict(), **IN_FLOAT32)
    inputs, labels = rows(9)
    losses, hits = engine.evaluate(inputs[0], labels)
    logits = net.eval()(inputs[0])
    torch.testing.assert_close(losses[1], softmax(logits, labels[1]).detach(), **IN_FLOAT32)
    assert torch.equal(hits[1], logits.argmax(dim=1) == labels[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restart_goes_on_with_the_same_bits_in_noise_buffers_and_state(name, tmp_path):
    engine, whole, before = train(sequential(name), range(3), batches=rows), sequential(name), torch.get_rng_state()
    engine.keep([0, 2])
    checkpoint.save(tmp_path / "state", engine.tensors(), checkpoint.Progress(3, [0, 2], 0))
    (tmp_path / "metrics").touch()
    saved = checkpoint.load(tmp_path / "state", "cpu", whole.tensors(), tmp_path / "metrics")
    assert saved is not None
    whole.keep([0, 2])
    whole.load(saved[0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)  # whatever the global generator has been through
    for each in (engine, whole):
        train(each, range(3, 6), (0, 2), batches=rows)
    assert_same(whole.tensors(), engine.tensors(), **EXACT)
    alone = train(sequential(name, (5,)), range(6), (2,), batches=rows)
    assert_same({n: p[1:] for n, p in engine.parameters.items()}, alone.parameters, **IN_FLOAT32)
    assert_same({n: b[1:] for n, b in engine.buffers.items()}, alone.buffers, **IN_FLOAT32)


class Seen(nn.Module):
    """A linear layer that draws noise of its own, in evaluation too, and remembers it."""

    def __init__(self):
        super().__init__()
        self.linear, self.noise = nn.Linear(3, 4), []

    def forward(self, x):
        self.noise.append(torch.randn(4))
        return self.linear(x) + self.noise[-1]


def test_members_and_steps_have_other_noise_and_evaluations_the_same():
    built = []

    def build():
        built.append(Seen())
        return built[-1]

    engine = train(sequential(seeds=(3, 4), net=build), range(2), (0, 1), batches=rows)
    noise = [each for net in built for each in net.noise]
    assert len(noise) == 4
    assert not any(torch.equal(noise[i], noise[j]) for i in range(4) for j in range(i))
    inputs, labels = rows(0, (0, 1))
    first, again = (engine.evaluate(inputs[0], labels)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_frozen_parameters_stay_and_the_users_net_is_not_touched():
    net = noisy()
    net[4].weight.requires_grad_(False)
    before = {name: each.clone() for name, each in net.state_dict().items()}
    engine = sequential(net=net)
    start = engine.parameters
    train(engine, range(2), batches=rows)
    assert torch.equal(engine.parameters["4.weight"], start["4.weight"])
    assert not torch.equal(engine.parameters["0.weight"], start["0.weight"])
    assert_same(net.state_dict(), before, **EXACT)


def test_it_has_no_program_and_says_so_and_computes_one_member_at_once():
    with pytest.warns(UserWarning, match="not compiled"):
        assert sequential().compile(*rows(0)) is False
    assert sequential().choose_height(*rows(0)) == 1
