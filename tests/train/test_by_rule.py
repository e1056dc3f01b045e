"""What shares a treatment is updated together, and what is dropped, saved and restored is the members' own."""

import pytest
import torch

from muonlab.rules import adamw, muon
from muonlab.train.by_rule import ByRule, Treatment

KERNEL = (4, 2, 3, 3)
by_rate = pytest.mark.parametrize("lr", [0.02, torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)])


def stacks(order=(0, 1, 2, 3, 4)):
    """Stacks (3, ...) of matrices, vectors and kernels, the axes of the last in this order in memory."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 6), "b": (6, 4), "c": (6,), "d": (4, 6), "kernel": KERNEL}
    made = {name: torch.randn(3, *shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    back = sorted(range(5), key=lambda axis: order[axis])
    return made | {"kernel": made["kernel"].permute(order).contiguous().permute(back)}


def treatments(lr=0.02, others=0.01):
    matrix, rest = Treatment(muon, {"lr": lr}, flatten=True), Treatment(adamw, {"lr": others}, flatten=True)
    return {name: rest if name == "c" else matrix for name in stacks()}


# In the second order no view of the stack is the matrices: what the rule has made of a copy must come back.
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 1, 3, 4, 2)], ids=["", "channels last"])
@by_rate
def test_each_parameter_has_the_update_of_its_rule_and_a_kernel_that_of_its_matrix(lr, order):
    ps = stacks(order)
    held, gradients = dict(ps), {name: p.cos() for name, p in ps.items()}
    optimizer, own = ByRule(ps, treatments(lr)), lr.view(3, 1, 1) if isinstance(lr, torch.Tensor) else lr
    plain = {name: p.reshape(3, 4, 18) if name == "kernel" else p.clone() for name, p in stacks().items()}
    states = {name: (adamw if name == "c" else muon).init(p) for name, p in plain.items()}
    for step in range(3):
        for name, p in plain.items():
            rule, rate = (adamw, 0.01) if name == "c" else (muon, own)
            plain[name], states[name] = rule.update(gradients[name].reshape(p.shape), states[name], p, lr=rate)
        optimizer.step_stacked(ps, gradients, step)
    for name, p in plain.items():
        torch.testing.assert_close(held[name], p.view(held[name].shape), rtol=1e-9, atol=1e-12)
    shapes = {name: tuple(tensor.shape) for name, tensor in optimizer.tensors().items()}
    assert shapes == {f"state/{name}/momentum": tuple(p.shape) for name, p in plain.items() if name != "c"} | {
        "state/c/exp_avg": (3, 6),
        "state/c/exp_avg_sq": (3, 6),
        "state/c/step": shapes["state/c/step"],
    }


@by_rate
def test_those_that_stay_go_on_from_a_checkpoint_with_their_own_state_and_hyper_parameters(lr):
    ps, gradients = stacks(), {name: p.sin() for name, p in stacks().items()}
    whole, few = ByRule(ps, treatments(lr)), ByRule(stacks(), treatments(lr))
    for step in range(2):
        whole.step_stacked(ps, gradients, step)
    saved = {name: tensor.clone() for name, tensor in whole.tensors().items()}
    few.load(saved)
    copies = {name: tensor.clone() for name, tensor in saved.items()}
    few.keep([0, 2])
    assert len({id(each) for each in few.treatments.values()}) == 2  # those that share one still do
    others = {name: p[[0, 2]] for name, p in ps.items()}
    for step in range(2):
        whole.step_stacked(ps, gradients, step)
        few.step_stacked(others, {name: g[[0, 2]] for name, g in gradients.items()}, step)
    for name, p in others.items():
        torch.testing.assert_close(p, ps[name][[0, 2]], rtol=1e-12, atol=1e-14)
    assert all(torch.equal(saved[name], copies[name]) for name in saved)


@by_rate
def test_a_pace_multiplies_all_learning_rates_in_its_step_alone(lr):
    ps, paced = stacks(), stacks()
    gradients = {name: p.cos() for name, p in ps.items()}
    optimizer, expected = ByRule(paced, treatments(lr)), ByRule(ps, treatments(lr))
    for step, pace in enumerate((0.25, 0.0, 1.0)):
        expected.treatments = treatments(lr * pace, 0.01 * pace)
        expected.step_stacked(ps, gradients, step)
        optimizer.step_stacked(paced, gradients, step, pace)
    assert all(torch.equal(paced[name], p) for name, p in ps.items())


def several(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_members_that_differ_in_every_setting_step_in_place_as_each_would_alone(monkeypatch):
    """By kernels in place, to rounding, over a pace and a member that leaves; the oracle is the pure rule by member."""
    by_muon = {"lr": several(0.01, 0.02, 0.04), "momentum": several(0.8, 0.9, 0.95), "weight_decay": 0.1}
    by_adamw = {
        "lr": several(0.1, 0.01, 0.001),
        "beta1": several(0.8, 0.9, 0.95),
        "beta2": 0.98,
        "weight_decay": several(0.0, 1.0, 0.1),
    }
    matrix = Treatment(muon, {**by_muon, "adjust_lr_fn": "match_rms_adamw"}, flatten=True)
    rest = Treatment(adamw, by_adamw)
    ps, others = stacks(), stacks()
    own = {name: rest if name in ("b", "c") else matrix for name in ps}
    optimizer, plain = ByRule(ps, own), ByRule(others, own)
    for step, pace in enumerate((0.5, 1.0, 0.25)):
        if step == 2:
            for each in (optimizer, plain):
                each.keep([0, 2])
            ps, others = ({name: p[[0, 2]] for name, p in each.items()} for each in (ps, others))
        gradients = {name: p.cos().transpose(1, -1).contiguous().transpose(1, -1) for name, p in ps.items()}
        with monkeypatch.context() as patched:
            for rule in (muon, adamw):
                patched.setattr(rule, "update", lambda *_, **__: pytest.fail("not in place"))
            optimizer.step_stacked(ps, gradients, step, pace)
        with monkeypatch.context() as patched:
            for rule in (muon, adamw):
                patched.setattr(rule, "takes", lambda *_: False)
            plain.step_stacked(others, {name: p.cos() for name, p in others.items()}, step, pace)
    for name, p in ps.items():
        torch.testing.assert_close(p, others[name], rtol=1e-9, atol=1e-12)
    for name, tensor in plain.tensors().items():
        torch.testing.assert_close(optimizer.tensors()[name], tensor, rtol=1e-9, atol=1e-12)


PAPERS = {"adjust_lr_fn": "match_rms_adamw", "polar_dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("rule", "own", "hyper"),
    [
        (muon, {"lr": 0.013, "momentum": 0.93, "weight_decay": 0.07}, {}),
        (muon, {"lr": 0.013, "weight_decay": 0.0}, PAPERS),
        (muon, {"lr": 0.013, "weight_decay": 0.07}, {"cautious": True, "nesterov": False}),
        (muon, {"lr": 0.013}, {"variant": "adamuon", "equilibrate": "row"}),
        (muon, {"lr": 0.013}, {"hyperball": True, "update_floor": 0.3}),
        (adamw, {"lr": 0.013, "beta1": 0.8, "beta2": 0.98, "weight_decay": 0.07}, {}),
    ],
    ids=["muon", "bfloat16", "cautious", "variant", "held", "adamw"],
)
@pytest.mark.parametrize("num_members", [1, 5])
def test_settings_by_member_that_are_all_equal_give_the_bits_of_a_number(rule, own, hyper, num_members):
    """On a CPU, and of matrices whose entries fill its vectors: the rest of a row may be added in another order."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (48, 32), "b": (32, 64)}
    begin = {name: torch.randn(num_members, *shape, generator=generator) for name, shape in shapes.items()}
    found = []
    for one in (own, {name: several(*[value] * num_members) for name, value in own.items()}):
        ps = {name: p.clone() for name, p in begin.items()}
        shared = Treatment(rule, {**hyper, **one})
        optimizer = ByRule(ps, dict.fromkeys(ps, shared))
        for step in range(3):
            optimizer.step_stacked(ps, {name: (p + step).cos() for name, p in begin.items()}, step, 0.7)
        found.append(ps | optimizer.tensors())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_momentum_by_member_is_taken_where_a_number_would_go_by_tiles():
    momenta, (rows, columns) = several(0.5, 0.8, 0.95), (64, 80)  # so large that a step goes tile by tile
    begin = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
    ps = {"a": begin.clone()}
    optimizer = ByRule(ps, {"a": Treatment(muon, {"lr": 0.02, "momentum": momenta, "method": "auto"})})
    plain, state = begin.clone(), muon.init(begin)
    for step in range(3):
        optimizer.step_stacked(ps, {"a": (begin + step).cos()}, step)
        each = momenta.view(3, 1, 1)
        plain, state = muon.update((begin + step).cos(), state, plain, lr=0.02, momentum=each, method="auto")
    torch.testing.assert_close(ps["a"], plain, rtol=1e-4, atol=1e-6)
