"""What every net promises: weights from a generator, taps, stacks, Muon for the right parameters."""

import pytest
import torch
from torch import nn

from muonlab import MuonAdamW, split_params
from muonlab.losses import softmax
from muonlab.nets.dropout import Dropout, mix
from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.nets.prenorm import SHORT
from muonlab.nets.resnet import ResNet
from muonlab.nets.transformer import Transformer
from muonlab.nets.vit import ViT
from muonlab.optim.routing import roles
from muonlab.rules import adamw, muon
from muonlab.train.by_rule import Treatment
from muonlab.train.engine import build
from muonlab.train.modules import drawn, takes_key
from muonlab.train.population import Population
from muonlab.train.seeds import fold_in
from muonlab.train.sequential import Sequential

ROWS, C, V, T = 8, 4, 11, 6
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 0, 0])
MODERN = {"norm": "rms", "positions": "rope", "feed_forward": "swiglu", "bias": False}
IMAGE = {"channels": 1, "image_size": 8}
OF_VIT = {**IMAGE, "patch": 4, "depth": 2, "width": 12, "heads": 3}
OF_GPT = {"depth": 2, "width": 12, "heads": 3, "context": T}
SMALL = {"width": 16, "heads": 2, "ff_width": 24, "context": T}
NANDA = {"depth": 1, "gated": False, "dropout": 0.0, "activation": "relu", "norm": "none", "positions": "learned"}
POWER = {"gated": False, "dropout": 0.3, "activation": "relu", "norm": "layer", "positions": "learned"}
MAKE = {
    "resnet": lambda: ResNet(C, **IMAGE, width=4, depths=(1, 1), norm="group", groups=2),
    "resnet, batch": lambda: ResNet(C, **IMAGE, width=4, depths=(1, 1), norm="batch"),
    "resnet, large stem": lambda: ResNet(C, image_size=96, width=2, depths=(1,), norm="group", groups=2),
    "vit": lambda: ViT(C, **OF_VIT, dropout=0.3),
    "vit, mean": lambda: ViT(C, **OF_VIT, pooling="mean", positions="sincos", feed_forward="swiglu"),
    "gpt": lambda: GPT(V, C, **OF_GPT, padding=0, dropout=0.3),
    "language": lambda: GPT(V, **OF_GPT, dropout=0.3),
    "language, untied": lambda: GPT(V, **OF_GPT, **MODERN, tied=False),
    "mlp": lambda: MLP(64, C, depth=3, width=12, dropout=0.3),
    "linear": lambda: LinearClassifier(64, C),
    "transformer": lambda: Transformer(V, C, depth=3, width=12, heads=3, ff_width=24, dropout=0.5),
    "transformer of Nanda": lambda: Transformer(V, C, **SMALL, **NANDA, bias=True),
    "transformer of Power": lambda: Transformer(V, C, **SMALL, **POWER),
    "transformer, no positions": lambda: Transformer(V, C, **SMALL, activation="gelu", bias=True, positions="none"),
    "transformer, biases": lambda: Transformer(V, C, **SMALL, norm="layer", bias=True, embedding_std=1.0),
    "one-hot": lambda: MLP(T, C, vocabulary=V, depth=2, width=12, activation="square", bias=False, init_scale=3.0),
}
every_net = pytest.mark.parametrize("name", [name for name in MAKE if name != "resnet, large stem"])
stacked = pytest.mark.parametrize("name", [name for name in MAKE if name != "resnet, batch"])


def data(name):
    """Return float64 inputs and labels; the last text is short."""
    generator = torch.Generator().manual_seed(0)
    if name.startswith(("gpt", "language", "transformer", "one-hot")):
        tokens = torch.randint(1, V, (ROWS, T), generator=generator)
        if name.startswith("language"):
            return tokens, tokens.roll(-1, dims=1)
        tokens[-1, 3:] = 0
        return tokens, LABELS
    shape = (ROWS, 3, 96, 96) if name == "resnet, large stem" else (ROWS, 1, 8, 8)
    return torch.randn(shape, generator=generator, dtype=torch.float64), LABELS


def loss(logits, labels):
    """Return the loss of each example, for a text the mean over its tokens."""
    each = softmax(logits.flatten(0, -2), labels.flatten()).view(labels.shape)
    return each.flatten(1).mean(dim=1) if labels.ndim > 1 else each


def made(name, seed=0):
    net = MAKE[name]().double()
    net.reset_parameters(torch.Generator().manual_seed(seed))
    return net


# --- weights


@every_net
def test_weights_depend_on_the_generator_alone(name):
    net, before = MAKE[name](), torch.get_rng_state()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(7)
    states = []
    for seed in (1, 1, 2):
        net.reset_parameters(torch.Generator().manual_seed(seed))
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.eq(7).all() for tensor in states[0].values())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    changed = {name for name, tensor in states[0].items() if not torch.equal(tensor, states[2][name])}
    matrices = {name for name, p in net.named_parameters() if p.ndim > 1 or name == "class_token"}
    assert changed == (set() if name == "linear" else matrices)


def test_the_constructor_leaves_the_weights_to_reset_parameters(monkeypatch):
    def fill(net):
        for p in net.parameters():
            nn.init.constant_(p, 7)

    for name, make in MAKE.items():
        if not name.startswith("transformer"):  # whose weights are drawn by whoever trains it
            monkeypatch.setattr(type(make()), "reset_parameters", fill)
            assert all(p.eq(7).all() for p in make().parameters())


# --- forward and backward


@every_net
def test_taps_are_the_blocks_in_order_and_every_parameter_has_part_in_the_loss(name):
    net, (inputs, labels), seen = made(name), data(name), []
    taps = getattr(net, "taps", ())
    for tap in taps:
        net.get_submodule(tap).register_forward_hook(lambda module, inputs, output: seen.append((module, output)))
    loss(net(inputs), labels).mean().backward()
    if not name.startswith("transformer"):
        assert [module for module, _ in seen] == list(getattr(net, "blocks", []))
        assert all(output.shape[0] == ROWS for _, output in seen)
        assert len({output.sum().item() for _, output in seen}) == len(seen) == len(taps)
    # Softmax does not see what is added to all scores of a query, and so not the bias of the keys.
    blind = {each for each, _ in net.named_parameters() if each.endswith("key.bias")}
    assert {each for each, p in net.named_parameters() if p.grad.abs().max() < 1e-12} - blind == set()


@pytest.mark.parametrize("name", ["resnet", "gpt", "transformer of Nanda", "one-hot"])
def test_a_net_compiles_into_one_graph(name):
    net, (inputs, labels) = made(name), data(name)
    noise = {"key": torch.tensor(5)} if takes_key(net) else {}
    expected = net(inputs, **noise)
    torch._dynamo.reset()
    found = torch.compile(net, backend="eager", fullgraph=True)(inputs, **noise)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    loss(found, labels).mean().backward()


@pytest.mark.parametrize("name", ["vit", "gpt", "language", "mlp", "transformer"])
def test_dropout_differs_by_key_and_place_and_stops_in_evaluation(name):
    net, inputs = made(name), data(name)[0]
    layers = [module.layer for module in net.modules() if isinstance(module, Dropout)]
    assert layers == list(range(len(layers)))
    one, other = torch.tensor(1), torch.tensor(2)
    assert torch.equal(net(inputs, one), net(inputs, one))
    assert not torch.equal(net(inputs, one), net(inputs, other))
    assert torch.equal(net.eval()(inputs, one), net(inputs, other))


# --- stacks


def by_name(net, *, by_muon, by_adamw):
    """Return the rule of each parameter that Muon and AdamW have by default."""
    routes = {route.name: route.rule for route in split_params(net).routes}
    return {name: by_muon if rule == "muon" else by_adamw for name, rule in routes.items()}


def optimizer(name, kind):
    net = MAKE[name]()
    one = Treatment(adamw, {"lr": 0.01, "weight_decay": 0.1})
    if kind == "muon":
        return by_name(net, by_muon=Treatment(muon, {"lr": 0.02}), by_adamw=one)
    if kind == "adamw":
        return by_name(net, by_muon=one, by_adamw=one)
    rules = {route.name: route.rule for route in split_params(net).routes}
    return lambda named: MuonAdamW(named, rules=lambda name, p: rules[name], ns_dtype=torch.float64)


# Rules see the last two axes as a matrix, which they are not in a convolution: for those there is MuonAdamW.
CASES = [
    ("resnet", "adamw"),
    ("resnet, large stem", "MuonAdamW"),
    ("vit", "muon"),
    ("gpt", "MuonAdamW"),
    ("language, untied", "muon"),
    ("linear", "MuonAdamW"),
    ("transformer of Power", "muon"),
    ("transformer, no positions", "adamw"),
    ("one-hot", "muon"),
]


@pytest.mark.kernels
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_members_of_a_population_are_the_nets_alone(name, kind):
    net, (inputs, labels), seeds = MAKE[name](), data(name), (3, 4)
    engine, reason = build(net, loss, optimizer(name, kind), seeds, inputs, labels, dtype=torch.float64)
    assert (type(engine), reason) == (Population, None)
    orders = torch.stack([torch.randperm(ROWS, generator=torch.Generator().manual_seed(k)) for k in range(6)])
    orders = orders.view(3, 2, ROWS)[:, :, : ROWS - 2]  # other batches for each member
    alone = Sequential(MAKE[name](), loss, optimizer(name, kind), seeds, dtype=torch.float64)
    for each in (engine, alone):
        for step, rows in enumerate(orders):
            each.step(inputs[rows], labels[rows], step)
    for each, p in alone.parameters.items():
        # Where a gradient is nothing but rounding, AdamW and Muon make a step of it.
        if not each.endswith("key.bias"):
            torch.testing.assert_close(engine.parameters[each], p, rtol=1e-7, atol=1e-9, msg=each)
    everywhere = labels.expand(2, *labels.shape)
    losses, hits = engine.evaluate(inputs, everywhere)
    assert (losses.shape, hits.shape) == ((2, ROWS), everywhere.shape)


@stacked
def test_a_member_is_what_a_plain_loop_makes(name):
    (inputs, labels), seed = data(name), 3

    def factory(named):
        return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9)

    population = Population(MAKE[name](), loss, factory, (8, seed), dtype=torch.float64)
    net = drawn(MAKE[name](), seed, torch.float64).train()
    plain = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        population.step(inputs.expand(2, *inputs.shape), labels.expand(2, *labels.shape), step)
        key = mix(torch.tensor(fold_in(seed, "dropout") % 2**32) ^ mix(torch.tensor(step)))
        plain.zero_grad()
        logits = net(inputs, key) if takes_key(net) else net(inputs)
        loss(logits, labels).mean().backward()
        plain.step()
    for each, p in net.named_parameters():
        torch.testing.assert_close(population.parameters[each][1], p.detach(), rtol=1e-9, atol=1e-11)


def test_batch_norm_trains_one_member_after_the_other_and_the_reason_is_said():
    inputs, labels = data("resnet, batch")
    net = MAKE["resnet, batch"]()
    engine, reason = build(net, loss, optimizer("resnet, batch", "adamw"), (3, 4), inputs, labels, dtype=torch.float64)
    assert isinstance(engine, Sequential)
    assert "changes its buffers as it trains (stem_norm.running_mean" in reason
    assert "nn.GroupNorm" in reason


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch loops over the members of such a stack
def test_members_that_read_long_texts_are_stacked_too():
    net, length = GPT(V, depth=1, width=12, heads=3, **MODERN), SHORT + 1
    tokens = torch.randint(V, (2, length), generator=torch.Generator().manual_seed(0))
    treatments = by_name(net, by_muon=Treatment(muon, {"lr": 0.02}), by_adamw=Treatment(adamw, {"lr": 0.01}))
    engine, reason = build(net, loss, treatments, (3, 4), tokens, tokens, dtype=torch.float64)
    assert (type(engine), reason) == (Population, None)
    alone = Sequential(net, loss, treatments, (3, 4), dtype=torch.float64)
    for each in (engine, alone):
        each.step(tokens.expand(2, -1, -1), tokens.expand(2, -1, -1), 0)
    for name, p in alone.parameters.items():
        torch.testing.assert_close(engine.parameters[name], p, rtol=1e-7, atol=1e-9, msg=name)


# --- Muon

BLOCK = ["attention.query", "attention.key", "attention.value", "attention.out", "feed_forward.inner"]
TAKEN = {
    "resnet": ["stem"] + [f"blocks.{k}.conv{n}" for k in (0, 1) for n in (1, 2)] + ["blocks.1.shortcut.0"],
    "vit": ["stem"] + [f"blocks.{k}.{part}" for k in (0, 1) for part in (*BLOCK, "feed_forward.out")],
    "language": [f"blocks.{k}.{part}" for k in (0, 1) for part in (*BLOCK, "feed_forward.out")],
    "mlp": [f"blocks.{k}.linear" for k in range(3)],
    "linear": ["linear"],
}
GATES = [f"blocks.{k}.feed_forward.gate" for k in (0, 1)]
TAKEN |= {
    "resnet, batch": TAKEN["resnet"],
    "vit, mean": TAKEN["vit"] + GATES,
    "gpt": TAKEN["language"],
    "language, untied": TAKEN["language"] + GATES,
}


@every_net
def test_muon_takes_the_hidden_matrices_and_convolutions(name):
    net = MAKE[name]()
    in_blocks = {each for each, p in net.named_parameters() if each.startswith("blocks.") and p.ndim == 2}
    hidden = {f"{part}.weight" for part in TAKEN[name]} if name in TAKEN else in_blocks
    split = split_params(net)
    assert {route.name for route in split.named("muon")} == hidden
    assert {route.kind for route in split.named("muon")} == {"convolution" if "resnet" in name else "matrix"}
    assert all(route.blocks == 1 for route in split.named("muon"))
    tables = {"head.weight": "output head", "embedding.weight": "embedding", "position_embedding.weight": "embedding"}
    for route in split.named("adamw"):
        assert route.reason == ("vector" if route.parameter.ndim == 1 else tables[route.name]), route.name
    assert {each for each, role in roles(net).items() if role == "hidden"} == hidden
    by_names_and_shapes = {route.name for route in split_params(net.named_parameters()).named("muon")}
    # One grey channel looks like a depthwise convolution.
    assert by_names_and_shapes == hidden - ({"stem.weight"} if "resnet" in name else set())
