"""The optimizers and the net of examples/grokking: the papers' formulas, torch's protocol, members of a population."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from muonlab.cli import main
from muonlab.losses import softmax
from muonlab.studies import grokking
from muonlab.testing import check_optimizer
from muonlab.train.engine import build
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

EXAMPLES = Path(__file__).parents[1] / "examples" / "grokking"


def load(name):
    """Return an example as a module, as path/name.py:attribute finds it."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where pickle looks for its classes
    spec.loader.exec_module(module)
    return module


ORTHOGRAD, GROKFAST, ONE_HOT_MLP = load("orthograd"), load("grokfast"), load("one_hot_mlp")
OPTIMIZERS = {
    "orthograd": lambda params: ORTHOGRAD.OrthoGrad(params, lr=0.01, weight_decay=0.1),
    "orthograd, sgd": lambda params: ORTHOGRAD.OrthoGradSGD(params, lr=0.01, momentum=0.9),
    "grokfast": lambda params: GROKFAST.Grokfast(params, lr=0.01, weight_decay=0.1),
}
each_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))
V, T, C = 7, 3, 5


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path_of(optimizer, gradients):
    """Return the parameter after each gradient."""
    p = torch.nn.Parameter(draw(4, 3))
    optimizer, path = optimizer([p]), []
    for gradient in gradients:
        p.grad = gradient(p.detach()) if callable(gradient) else gradient.clone()
        optimizer.step()
        path.append(p.detach().clone())
    return torch.stack(path)


GRADIENTS = [draw(4, 3, seed=seed) for seed in range(1, 7)]


# --- OrthoGrad


def test_an_orthogonal_gradient_has_no_part_along_the_weights_and_its_old_norm():
    gradient, weights = draw(4, 3), draw(4, 3, seed=1)
    found = ORTHOGRAD.orthogonal(gradient, weights)
    assert (found * weights).sum().abs() < 1e-12
    assert found.norm().item() == pytest.approx(gradient.norm().item(), rel=1e-12)
    # It lies in the plane of both, on the side of the gradient.
    plane = torch.stack([gradient, weights], dim=-1).flatten(0, 1)
    nearest = plane @ torch.linalg.lstsq(plane, found.flatten()).solution
    torch.testing.assert_close(nearest, found.flatten(), rtol=0, atol=1e-12)
    assert (found * gradient).sum() > 0


def test_gradients_of_zero_weights_and_zero_gradients_stay_what_they_are():
    gradient, zeros = draw(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    torch.testing.assert_close(ORTHOGRAD.orthogonal(gradient, zeros), gradient, rtol=1e-12, atol=0)
    assert torch.equal(ORTHOGRAD.orthogonal(zeros, gradient), zeros)
    assert torch.equal(ORTHOGRAD.orthogonal(2 * torch.ones(4), torch.ones(4)), torch.zeros(4))


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (ORTHOGRAD.OrthoGrad, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
        (ORTHOGRAD.OrthoGradSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ],
)
def test_orthograd_is_the_optimizer_with_orthogonal_gradients(ours, theirs, options):
    projected = [lambda p, g=g: ORTHOGRAD.orthogonal(g, p) for g in GRADIENTS]
    expected = path_of(lambda params: theirs(params, **options), projected)
    found = path_of(lambda params: ours(params, **options), GRADIENTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found - path_of(lambda params: theirs(params, **options), GRADIENTS)).abs().max() > 0.01


# --- Grokfast


def test_grokfast_is_adamw_on_gradients_plus_lamb_times_their_average():
    options = {"lr": 0.1, "weight_decay": 0.2, "betas": (0.9, 0.98)}
    alpha, lamb = 0.8, 5.0
    filtered = []
    for number, gradient in enumerate(GRADIENTS):
        # The average in closed form: the first gradient counts alpha^n, the k-th (1 - alpha) alpha^(n - k).
        weights = [alpha**number] + [(1 - alpha) * alpha ** (number - k) for k in range(1, number + 1)]
        filtered.append(gradient + lamb * sum(w * g for w, g in zip(weights, GRADIENTS, strict=False)))
    expected = path_of(lambda params: torch.optim.AdamW(params, **options), filtered)
    found = path_of(lambda params: GROKFAST.Grokfast(params, alpha=alpha, lamb=lamb, **options), GRADIENTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_grokfast_has_the_papers_defaults_by_group_and_names_bad_options():
    p, q = (torch.nn.Parameter(draw(3)) for _ in range(2))
    groups = GROKFAST.Grokfast([{"params": [p], "lamb": 0.0}, {"params": [q], "alpha": 0.5}], lr=0.1).param_groups
    assert [(group["alpha"], group["lamb"]) for group in groups] == [(0.98, 0.0), (0.5, 2.0)]
    for options, message in (({"alpha": 1.0}, "alpha=1.0"), ({"lamb": -1}, "lamb=-1")):
        with pytest.raises(ValueError, match=f"{message} is out of range"):
            GROKFAST.Grokfast([p], **options)


# --- both


@each_optimizer
def test_the_optimizers_do_what_torch_expects_of_one(name):
    # Squares of gradients of 1e30 overflow in float32, as in the authors' code of OrthoGrad.
    skip = ["gradient_scale"] if "orthograd" in name else []
    check_optimizer(OPTIMIZERS[name], skip=skip)


# --- the net


def test_the_net_squares_sums_of_columns_that_the_tokens_choose():
    net = ONE_HOT_MLP.build(V, T, C).double()
    tokens = torch.randint(V, (6, T), generator=torch.Generator().manual_seed(0))
    columns = net.hidden.weight.unflatten(1, (T, V))  # (D, T, V)
    sums = torch.stack([sum(columns[:, t, token] for t, token in enumerate(row)) for row in tokens])
    torch.testing.assert_close(net(tokens), sums**2 @ net.head.weight.T, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in net.parameters()) == 500 * (T * V + C)


@each_optimizer
def test_members_of_a_population_are_the_net_alone(name):
    tokens = torch.randint(V, (8, T), generator=torch.Generator().manual_seed(0))
    labels, seeds = tokens.sum(dim=1) % C, (3, 4)

    def net():
        return ONE_HOT_MLP.build(V, T, C)

    engine, reason = build(net, softmax, OPTIMIZERS[name], seeds, tokens, labels, dtype=torch.float64)
    assert (type(engine), reason) == (Population, None)
    alone = Sequential(net, softmax, OPTIMIZERS[name], seeds, dtype=torch.float64)
    orders = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(k)) for k in range(6)])
    for step, rows in enumerate(orders.view(3, 2, 8)[:, :, :6]):  # other batches for each member
        for each in (engine, alone):
            each.step(tokens[rows], labels[rows], step)
    for each, p in alone.parameters.items():
        torch.testing.assert_close(engine.parameters[each], p, rtol=1e-7, atol=1e-9, msg=each)


# --- from the command line alone


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        (
            f"optimizers=adamw,ortho={EXAMPLES}/orthograd.py:OrthoGrad,{EXAMPLES}/grokfast.py:Grokfast ortho.lr=1e-3 "
            "ortho.betas=[0.9,0.98] Grokfast.lr=1e-3 Grokfast.weight_decay=1 "
            f"net=transformer,{EXAMPLES}/one_hot_mlp.py:build",
            [],
        ),
        (
            "optimizers=sgd,adamw,plain=muon sgd.takes=hidden adamw.filter_lamb=2 adamw.coupled=true "
            "adamw.head_lr=1e-4 plain.orthogonalize=false net=transformer,mlp positions=learned norm=layer bias=true",
            ["positions has no effect with net=mlp", "norm has no effect with net=mlp"],
        ),
    ],
)
def test_what_the_literature_asks_for_runs_from_the_command_line_alone(words, notes, tmp_path, capsys):
    few = "preset=tiny task=add seeds=1 control_seeds=0 budget=20 workers=1 modulus=11"
    with pytest.raises(SystemExit) as stopped:
        main(["run", "grokking", *few.split(), *words.split(), f"out={tmp_path / 'study'}"])
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    assert [line for line in printed.err.splitlines() if line.startswith("note")] == [f"note: {each}" for each in notes]
    rows = grokking.rows(tmp_path / "study")
    assert len(rows) == len({row["cell"] for row in rows}) == 6
    assert {row["last_step"] for row in rows} == {20}
    assert all(row["best_validation_accuracy"] >= 0 for row in rows)
