"""Optimizers of members: what Muon takes, and optimizers of a user's own."""

import pytest
import torch
from torch import nn

import muonlab
from muonlab.losses import softmax
from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT
from muonlab.rules import adamw, muon, sgd
from muonlab.study.optimizers import Muon
from muonlab.train import engine, optimizers
from muonlab.train.optimizers import treatments
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

NETS = {
    "cnn": ResNet(5, channels=1, image_size=8, width=8, depths=(1, 1), norm="group", groups=4),
    "vit": ViT(5, channels=1, image_size=8, patch=2, depth=1, width=12, heads=3, pooling="class"),
    "classifier": GPT(20, 3, depth=1, width=8, heads=2, context=8),
    "language": GPT(20, depth=1, width=8, heads=2, context=8, tied=False),
}


def taken(net, **options):
    return {name for name, each in treatments(net, "muon", {"lr": 0.1}, **options).items() if each.rule is muon}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_muon_takes_the_hidden_matrices_and_adamw_all_else(net):
    treated = treatments(net, "muon", {"lr": 0.1}, others={"lr": 0.2}, stems=("stem",))
    for name, p in net.named_parameters():
        is_hidden = name.startswith("blocks.") and p.ndim > 1
        assert treated[name].rule is (muon if is_hidden else adamw), name
        assert treated[name].hyper == {"lr": 0.1 if is_hidden else 0.2}


def test_what_muon_takes_can_be_chosen():
    net = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "hidden": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    assert taken(net) == {"hidden.weight"}
    assert taken(net, takes="hidden+head") == {"hidden.weight", "head.weight"}
    assert taken(net, takes="hidden+embedding") == {"hidden.weight", "embedding.weight"}
    assert taken(net, takes="matrices") == {"hidden.weight", "head.weight", "embedding.weight"}
    assert taken(MLP(4, 3, depth=1, width=5), takes="matrices") == {"blocks.0.linear.weight", "head.weight"}


def test_muon_may_see_a_kernel_as_a_matrix():
    treated = treatments(NETS["cnn"], "muon", {}, flatten=True)
    assert treated["blocks.0.conv1.weight"].seen(torch.zeros(2, 8, 4, 3, 3), 1).shape == (2, 8, 36)
    assert not treated["head.weight"].flatten


@pytest.mark.parametrize(("name", "rule"), [("adamw", adamw), ("sgd", sgd)])
def test_the_others_take_every_parameter_alike(name, rule):
    treated = treatments(NETS["cnn"], name, {"lr": 0.1})
    assert treated.keys() == dict(NETS["cnn"].named_parameters()).keys()
    assert len({id(each) for each in treated.values()}) == 1
    assert all(each.rule is rule for each in treated.values())


# ---- optimizers of a user's own


def net():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


class Fused(torch.optim.Optimizer):
    """Moves its parameters into one tensor when it is made, and steps that."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        own = self.param_groups[0]["params"]
        self.together = torch.cat([p.detach().flatten() for p in own])
        for p, part in zip(own, self.together.split([p.numel() for p in own]), strict=True):
            p.data = part.view_as(p)

    @torch.no_grad()
    def step(self, closure=None):
        gradients = [p.grad.flatten() for p in self.param_groups[0]["params"]]
        self.together.sub_(self.param_groups[0]["lr"] * torch.cat(gradients))


class Secretive(torch.optim.SGD):
    """Counts its steps where no checkpoint finds them, and slows down."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 1 / self.steps
        super().step()


class Wrapper:
    """Follows torch's protocol without being one of its classes."""

    def __init__(self, params, lr):
        self.inner = torch.optim.SGD(params, lr=lr, momentum=0.9)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def step(self):
        self.inner.step()


class Closure(torch.optim.SGD):
    def step(self, closure):
        """Need a closure."""


def drawn(call):
    return optimizers.factories(call, (1e-2, 3e-2))


def trained(call, seeds=(0, 1)):
    torch.manual_seed(0)
    inputs, labels = torch.randn(2, 16, 3), torch.randint(0, 2, (2, 16))
    found, reason = engine.build(net, softmax, drawn(call), seeds, inputs[0], labels[0])
    for step in range(4):
        found.step(inputs, labels, step)
    return found, reason


@pytest.mark.parametrize("call", [torch.optim.RAdam, Wrapper])
def test_an_optimizer_trains_a_population_as_it_trains_each_member_alone(call):
    optimizers.check(call, {}, net(), "own")
    found, reason = trained(call)
    assert isinstance(found, Population)
    assert reason is None
    inputs, labels = torch.manual_seed(0) and (torch.randn(2, 16, 3), torch.randint(0, 2, (2, 16)))
    alone = Sequential(net, softmax, drawn(call), (0, 1))
    for step in range(4):
        alone.step(inputs, labels, step)
    for name, p in alone.parameters.items():
        torch.testing.assert_close(found.parameters[name], p, rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_moves_its_parameters_trains_one_member_after_the_other_and_says_so():
    found, reason = trained(Fused)
    assert isinstance(found, Sequential)
    assert reason.startswith(
        "the optimizer does not step parameters that are views into a stack (0.weight differs). So"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda params, lr: 3, "own is not an optimizer: it made a int; expected torch's protocol, with step"),
        (lambda params: 3, r"own cannot be made for this net \(TypeError: .*unexpected keyword argument 'lr'"),
        (torch.optim.Muon, "own cannot be made for this net .ValueError: Muon only supports 2D parameters"),
        (Closure, "own cannot train this net: Closure needs a closure"),
        (Secretive, r"own keeps what its steps depend on outside of its state_dict\(\) \(0.weight differs after"),
        (lambda params, lr: torch.optim.SGD(params[:2], lr), "cannot train this net: .* leaves out 2.weight, 2.bias"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_message(call, message):
    with pytest.raises(ValueError, match=message):
        optimizers.check(call, {}, net(), "own")


def by_name(named_parameters, lr, factor=3.0):
    """Share the parameters out by name, as a user would who wants AdamW for the head."""
    named = list(named_parameters)
    head = [p for name, p in named if name.startswith("2.")]
    others = [p for name, p in named if not name.startswith("2.")]
    return [torch.optim.SGD(others, lr=lr), torch.optim.SGD(head, lr=factor * lr)]


def test_a_function_of_named_parameters_may_share_them_out_to_several_optimizers():
    optimizers.check(by_name, {}, net(), "own")
    found, reason = trained(by_name)
    assert reason is None
    same, _ = trained(lambda params, lr: torch.optim.SGD(params, lr=lr))
    ratio = {}
    for name, p in same.parameters.items():
        start = torch.stack([dict(engine.drawn(net, seed, torch.float32).named_parameters())[name] for seed in (0, 1)])
        ratio[name] = (found.parameters[name] - start).norm() / (p - start).norm()
    assert ratio["2.weight"] > 2
    assert ratio["0.weight"] < 2


VARIED = [
    {"variant": "normuon"},
    {"variant": "adamuon", "decay": "l2"},
    {"equilibrate": "row", "renormalize": "col_row", "update_floor": 0.5, "decay": "independent"},
    {"hyperball": True, "lookahead": 0.5, "variant": "normuon"},
]


@pytest.mark.parametrize("varied", VARIED, ids=str)
@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.01, 0.03)], ids=["one rate", "a rate each"])
def test_a_variant_of_muon_trains_members_as_its_torch_shell_trains_them_alone(varied, rates):
    def build():
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    own = {"momentum": 0.9, "weight_decay": 0.1}
    treated = optimizers.of_config(build(), Muon(**varied, **own), [{"lr": rate} for rate in rates])
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(16, 3, generator=generator), torch.randint(0, 2, (16,), generator=generator)
    members = Population(build, softmax, treated, (0, 1))
    batch = inputs.expand(2, -1, -1), labels.expand(2, -1)
    alone = []
    for seed, rate in enumerate(rates):
        model = engine.drawn(build, seed, torch.float32)
        hidden = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": hidden, "rule": "muon"}, {"params": others, "rule": "adamw"}]
        further = {
            "adamw_weight_decay": 0.1,
            "betas": (0.9, 0.98),
            "method": "quintic",
            "adjust_lr_fn": "match_rms_adamw",
        }
        alone.append((model, muonlab.MuonAdamW(groups, lr=rate, adamw_lr=rate, **further, **varied, **own)))
    for step in range(4):
        members.step(*batch, step)
        for model, optimizer in alone:
            model.zero_grad()
            softmax(model(inputs), labels).mean().backward()
            optimizer.step()
    for member, (model, _) in enumerate(alone):
        for name, p in model.named_parameters():
            torch.testing.assert_close(members.parameters[name][member], p, rtol=1e-4, atol=1e-5)
