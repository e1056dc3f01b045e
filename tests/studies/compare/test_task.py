"""`muonlab compare` on a task of a user's own: what it trains, what it decides, and what a task may get wrong."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import muonlab
from invented import invented, judged
from muonlab.cli import main
from muonlab.jobs import store
from muonlab.jobs.job import JobRecord
from muonlab.studies.compare import analyse
from muonlab.studies.compare.analysis import find
from muonlab.studies.compare.ask import ask, default_folder
from muonlab.studies.compare.config import Train, Training
from muonlab.studies.compare.jobs import outline, steps
from muonlab.studies.compare.sentences import on_present
from muonlab.studies.compare.switch import Switch
from muonlab.studies.compare.trials import FINALISTS, FRESH, FRESH_FROM, by_point
from muonlab.studies.compare.work.job import check, run
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.study import dotted
from muonlab.study.optimizers import AdamW
from muonlab.study.search import SEARCH_FROM
from muonlab.study.settings import UsageError

OWN = """
import torch
from torch import nn

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1).gt(0).long()
PARTS = (X[:48], Y[:48]), (X[48:], Y[48:])

def net(): return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
def task(seed): return net(), *PARTS, nn.functional.cross_entropy, PARTS[1]
def regression(seed):
    parts = {"train": (X, X[:, :1]), "validation": (X, X[:, :1])}
    return {"model": nn.Linear(4, 1), **parts, "loss": nn.functional.mse_loss}
def normed(seed):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*PARTS[0]), 16, shuffle=True)
    return model, loader, PARTS[1], nn.functional.cross_entropy

class Drops(torch.utils.data.Dataset):
    def __len__(self): return 40
    def __getitem__(self, row): return X[row] * torch.rand(()), Y[row]
def augmented(seed): return net(), Drops(), PARTS[1], nn.functional.cross_entropy

def three(seed): return net(), *PARTS
def no_net(seed): return 3, *PARTS, nn.functional.cross_entropy
def nothing(seed): net()
def loss_class(seed): return net(), *PARTS, nn.CrossEntropyLoss
def no_seed(): return task(0)
def empty(seed): return net(), (X[:0], Y[:0]), PARTS[1], nn.functional.cross_entropy
def fails(seed): raise OSError("no disk")
def nan(seed): return net(), (X * float("nan"), Y), PARTS[1], nn.functional.cross_entropy
def detached(seed): return net(), *PARTS, lambda out, y: nn.functional.cross_entropy(out, y).detach()
def vector(seed): return net(), *PARTS, lambda out, y: out
def labels(seed): return net(), (X, Y + 5), PARTS[1], nn.functional.cross_entropy
def dicts(seed): return net(), [{"x": X, "y": Y}], PARTS[1], nn.functional.cross_entropy
def numbers(seed): return net(), 5, PARTS[1], nn.functional.cross_entropy
def wide(seed): return nn.Linear(9, 2), *PARTS, nn.functional.cross_entropy
class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return zip(X, Y)
def stream(seed): return net(), Stream(), PARTS[1], nn.functional.cross_entropy
def once(seed): return net(), (part for part in [PARTS[0]]), PARTS[1], nn.functional.cross_entropy
def nested(seed): return net(), [((X, X), Y)], PARTS[1], nn.functional.cross_entropy
def double(seed): return net().double(), (X.double(), Y), (X.double(), Y), nn.functional.cross_entropy
def other_labels(seed): return net(), PARTS[0], (X, Y + 5), nn.functional.cross_entropy
def nan_validation(seed): return net(), PARTS[0], (X * float("nan"), Y), nn.functional.cross_entropy
def other_test(seed): return net(), *PARTS, nn.functional.cross_entropy, (X[:, :3], Y)
def no_test(seed): return net(), *PARTS, nn.functional.cross_entropy, []
class Trained(nn.Linear):
    def reset_parameters(self, generator=None): self.weight.data.zero_(); self.bias.data.zero_()
def trained(seed):
    model = Trained(4, 2)
    model.weight.data.fill_(3.0)
    return model, *PARTS, nn.functional.cross_entropy
def split(seed):
    parts = [X[seed % 4 :: 4], Y[seed % 4 :: 4]]
    return net(), PARTS[0], [[part[: 8 + seed % 2] for part in parts], parts], nn.functional.cross_entropy
LATE = Y.clone()
LATE[40] = 7
HOLE = X.clone()
HOLE[40] = float("nan")
HALVES = [(X[:32], Y[:32]), (X[32:], LATE[32:])]
ce = nn.functional.cross_entropy
def late_labels(seed): return net(), PARTS[0], HALVES, ce
def late_train_labels(seed): return net(), HALVES, PARTS[1], ce
def late_nan(seed): return net(), PARTS[0], [(X[:32], Y[:32]), (HOLE[32:], Y[32:])], ce
def late_train_nan(seed): return net(), [(X[:32], Y[:32]), (HOLE[32:], Y[32:])], PARTS[1], ce
def drawn(size):
    import os
    return torch.tensor(list(os.urandom(size))) % 2
def unseeded_inputs(seed): return net(), [PARTS[0], (drawn(64).float().view(16, 4), Y[:16])], PARTS[1], ce
def unseeded_targets(seed): return net(), [PARTS[0], (X, drawn(64))], PARTS[1], ce
def unseeded_validation(seed): return net(), PARTS[0], (X, drawn(64)), ce
def column(seed): return nn.Linear(4, 1), (X, X[:, 0]), (X, X[:, 0]), nn.functional.mse_loss
def own_column(seed): return nn.Linear(4, 1), (X, X[:, 0]), (X, X[:, 0]), lambda out, y: ((out - y) ** 2).mean()
def squeezed(seed): return nn.Linear(4, 1), (X, X[:, 0]), (X, X[:, 0]), lambda out, y: ((out[:, 0] - y) ** 2).mean()
def exits(seed): raise SystemExit("no data")
class Exits:
    def __iter__(self):
        yield PARTS[0]
        raise SystemExit("no data")
def exits_late(seed): return net(), Exits(), PARTS[1], ce
def lazy(seed): return nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2)), *PARTS, ce
class NoLength(torch.utils.data.Dataset):
    def __getitem__(self, row): return X[row], Y[row]
def no_length(seed): return net(), NoLength(), PARTS[1], ce
def none(seed): return net(), None, PARTS[1], ce
def hollow(seed): return net(), [(X[:0], Y[:0]), PARTS[0]], PARTS[1], ce
def sparse(seed):
    model = nn.Sequential(nn.Embedding(2, 4, sparse=True), nn.Flatten(), nn.Linear(4, 2))
    return model, (Y[:48, None], Y[:48]), (Y[48:, None], Y[48:]), ce
def penalty(seed):
    def loss(out, y): return ce(out, y) + torch.autograd.grad(out.sum(), out, create_graph=True)[0].sum()
    return net(), *PARTS, loss
class NoWay(torch.autograd.Function):
    @staticmethod
    def forward(context, x): return x.clone()
    @staticmethod
    def backward(context, gradient): raise RuntimeError("no way back")
def backward(seed): return net(), *PARTS, lambda out, y: NoWay.apply(ce(out, y))
def compiled(seed): return torch.compile(net()), *PARTS, ce
def sizes(seed): return nn.Linear(4, 2 + seed % 2), *PARTS, ce
def probabilities(seed):
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1), nn.Sigmoid())
    return model, *((x, y[:, None].float()) for x, y in PARTS), nn.BCELoss()
class Refusing(nn.Linear):
    def forward(self, x):
        out = super().forward(x)
        if not out.isfinite().all(): raise RuntimeError("not finite")
        return out
def refusing(seed): return nn.Sequential(nn.Linear(4, 8), Refusing(8, 2)), *PARTS, ce
def half(seed): return net().bfloat16(), *PARTS, ce
def meta(seed): return net().to("meta"), *PARTS, ce
def whole(seed): return net(), (X.long(), Y), PARTS[1], ce
def targets(seed): return net(), [(X, {"y": Y})], PARTS[1], ce
class Dict(nn.Linear):
    def forward(self, x): return {"logits": super().forward(x)}
def outputs(seed): return Dict(4, 2), *PARTS, ce
def padded(seed):
    sizes = [8 + (seed + k) % 3 for k in range(4)]
    return net(), [(X[k : k + size], Y[k : k + size]) for k, size in enumerate(sizes)], PARTS[1], ce
def weighted(seed):
    weight = torch.tensor([1.0, 2.0 + seed])
    return net(), *PARTS, lambda out, y: ce(out, y, weight)
def several(seed):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*PARTS[0]), 16, shuffle=True, num_workers=1)
    return net(), loader, PARTS[1], ce
def unseeded(seed):
    import numpy as np
    model = net()
    with torch.no_grad():
        model[0].bias.add_(float(np.random.default_rng().normal()))
    return model, *PARTS, nn.functional.cross_entropy
"""
EXAMPLE = Path(__file__).parents[3] / "examples" / "compare_digits.py"
TINY = ["horizons=1", "extensions=0", "trials=4", "seeds=3", "steps=6", "evaluations=2"]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def asked_of(*words):
    return ask(
        [*words, *(word for word in TINY if word.partition("=")[0] not in {w.partition("=")[0] for w in words})]
    )[1]


def done(asked, folder=Path("jobs")):
    """Do all jobs in this process, and return their results."""
    found = {}
    while todo := [step.job for step in steps(asked, found) if step.job.id not in found]:
        for job in todo:
            found[job.id] = run(config=job.config, folder=str(folder / job.id))
    return found


def of_role(asked, found, role, arm="adamw"):
    (step,) = [step for step in steps(asked, found) if (step.role, step.arm) == (role, arm)]
    return found[step.job.id]


@pytest.mark.parametrize("task", ["task", "regression", "normed", "augmented"])
def test_a_task_is_tuned_and_its_winner_runs_with_seeds_of_its_own(task):
    asked = asked_of(f"own.py:{task}", "optimizers=adamw")
    found = done(asked)
    search, again, final = (of_role(asked, found, role) for role in ("search", "again", "final"))
    assert [member["seed"] for member in search["members"]] == [SEARCH_FROM] * 4
    assert [member["seed"] for member in again["members"]] == list(range(FRESH_FROM, FRESH_FROM + FRESH)) * FINALISTS
    assert [member["seed"] for member in final["members"]] == [0, 1, 2]
    losses = np.mean(by_point(search), axis=1)
    assert again["points"] == [search["points"][trial] for trial in np.argsort(losses)[:FINALISTS]]
    assert final["points"] == [again["points"][np.mean(by_point(again), axis=1).argmin()]]
    assert (search["why_sequential"] is None) == (task != "normed")
    assert len(outline(asked)) == len(found)


def plain_loop(point, seed, task="task"):
    """The training that a user would write, with what `muonlab compare` draws for a seed."""
    material = TaskMaterial(dotted.find("task", f"own.py:{task}"), 32)
    loss = material.given(seed).loss
    model = material.build(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=point["lr"], betas=(point["beta1"], point["beta2"]), weight_decay=point["weight_decay"]
    )
    batches = (batch for epoch in range(99) for batch in material.batches(seed, "train", epoch))
    for _ in range(6):
        inputs, targets = next(batches)
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    inputs, targets = next(material.batches(seed, "validation"))
    return loss(model(inputs), targets).item()


def job_of(task, points=({"lr": 0.01},), seeds=(0,)):
    """A job of AdamW, as a config."""
    trained = asked_of(f"own.py:{task}").trained
    training = Training(budget=6, evaluations=2)
    return Train(trained=trained, training=training, optimizer=AdamW(), points=points, seeds=seeds)


def test_every_member_of_the_search_is_the_run_that_a_plain_loop_gives():
    asked = asked_of("own.py:task", "optimizers=adamw", "schedule=constant", "warmup=0")
    search = of_role(asked, done(asked), "search")
    for member in search["members"]:
        expected = plain_loop(search["points"][member["point"]], member["seed"])
        assert member["validation_loss"][-1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("task", "is_stacked"), [("padded", True), ("weighted", False)])
def test_runs_of_several_seeds_have_the_batches_and_the_loss_of_their_own(task, is_stacked):
    """Batches of other sizes stay in a stack; losses that depend on the seed do not."""
    asked = asked_of(f"own.py:{task}", "optimizers=adamw", "schedule=constant", "warmup=0")
    final = of_role(asked, done(asked), "final")
    for member in final["members"]:
        expected = plain_loop(final["points"][member["point"]], member["seed"], task)
        assert member["validation_loss"][-1] == pytest.approx(expected, rel=1e-4)
    assert (final["why_sequential"] is None) == is_stacked


def test_what_is_wrong_with_a_late_batch_is_a_message_or_a_run_that_diverged():
    nan, labels = (
        steps(asked_of(f"own.py:late_train_{it}", "optimizers=adamw"), {})[0].job for it in ("nan", "labels")
    )
    assert {member["diverged_at"] for member in run(config=nan.config, folder="nan")["members"]} == {3}
    with pytest.raises(ValueError, match=r"own.py:late_train_labels: the loss raised \w+: .* for outputs"):
        run(config=labels.config, folder="labels")


# Bug: a loss that refuses NaN, as nn.BCELoss does, failed the job of all trials where one of them diverged.
def test_a_loss_that_refuses_what_a_diverged_run_puts_out_spares_the_others_of_its_stack():
    job = job_of("probabilities", points=({"lr": 0.01}, {"lr": 1e30}))
    good, bad = run(config=job.model_dump(mode="json"), folder="stack")["members"]
    alone = job.model_copy(update={"points": job.points[:1]})
    (same,) = run(config=alone.model_dump(mode="json"), folder="alone")["members"]
    assert (good["diverged_at"], bad["diverged_at"] is not None) == (None, True)
    assert good["validation_loss"] == pytest.approx(same["validation_loss"], rel=1e-5)


# Bug: a net that refuses NaN failed the job of all trials where one of them diverged.
def test_a_net_that_raises_where_a_run_diverges_is_a_run_that_diverged_and_says_why():
    job = job_of("refusing", points=({"lr": 0.01}, {"lr": 1e30}))
    good, bad = run(config=job.model_dump(mode="json"), folder="both")["members"]
    alone = job.model_copy(update={"points": job.points[:1]})
    (same,) = run(config=alone.model_dump(mode="json"), folder="one")["members"]
    assert good == same
    assert (bad["diverged_at"], bad["failure"]) == (3, "RuntimeError: not finite")
    assert bad["validation_loss"][1:] == [None, None]
    hopeless = job.model_copy(update={"points": job.points[1:]})
    with pytest.raises(RuntimeError, match="not finite"):
        run(config=hopeless.model_dump(mode="json"), folder="none")


# Bug: torch's error about stacks of unequal sizes.
def test_nets_that_differ_between_seeds_are_named():
    job = job_of("sizes", seeds=(0, 1))
    with pytest.raises(
        ValueError, match=r"weight of the model is \(2, 4\) for seed 0 and \(3, 4\) for seed 1; expected"
    ):
        run(config=job.model_dump(mode="json"), folder="sizes")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_is_compiled_already_trains_as_the_plain_one_does():
    plain, compiled = (
        run(config=job_of(task).model_dump(mode="json"), folder=task)["members"] for task in ("task", "compiled")
    )
    assert compiled == plain


@pytest.mark.parametrize("task", ["padded", "weighted", "squeezed", "several"])
def test_tasks_that_are_unusual_and_right_pass_the_check(task):
    check(trained=asked_of(f"own.py:{task}").trained.model_dump(mode="json"), optimizers={})


def test_weights_that_the_task_gave_its_model_are_kept_where_the_model_could_draw_others():
    final = of_role(asked := asked_of("own.py:trained", "optimizers=adamw"), done(asked), "final")
    material = TaskMaterial(dotted.find("task", "own.py:trained"), 32)
    inputs, targets = next(material.batches(0, "validation"))
    expected = nn.functional.cross_entropy((inputs @ torch.full((4, 2), 3.0)), targets).item()
    assert [member["validation_loss"][0] for member in final["members"]] == pytest.approx([expected] * 3)


def test_each_run_is_evaluated_on_the_validation_data_of_its_own_seed():
    asked = asked_of("own.py:split", "optimizers=adamw")
    found = done(asked)
    final = of_role(asked, found, "final")
    material = TaskMaterial(dotted.find("task", "own.py:split"), 32)
    for member in final["members"]:
        model, batches = material.build(member["seed"]), list(material.batches(member["seed"], "validation"))
        with torch.no_grad():
            losses = [
                nn.functional.cross_entropy(model(inputs), targets, reduction="none") for inputs, targets in batches
            ]
        assert member["validation_loss"][0] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_from_the_command_line_it_ends_in_a_report_and_goes_on_to_the_same_bytes(capsys):
    shutil.copy(EXAMPLE, "compare_digits.py")
    words = ["compare", "compare_digits.py:task", *TINY, "workers=1", "out=first"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Muon against AdamW" in said or "Muon ends" in said or "Muon and AdamW" in said
    assert "torch.optim.AdamW(model.parameters()" in said or "MuonAdamW(model" in said
    exec(Path("first", "report", "best.py").read_text(), made := {})
    optimizers = [made[label](nn.Linear(2, 2)) for label in ("adamw", "muon")]
    assert [type(each) for each in optimizers] == [torch.optim.AdamW, muonlab.MuonAdamW]
    command = "muonlab compare compare_digits.py:task horizons=1 extensions=0 trials=4 seeds=3 steps=6 evaluations=2"
    assert store.read(Path("first")).newest.command("compare") == command
    alone = done(ask(words[1:])[1], Path("alone"))
    for name in alone:
        assert Path("alone", name, "result.json").read_bytes() == Path("first", name, "result.json").read_bytes()
    found = analyse(Path("first"))
    titles = ["In detail", "Learning curves", "Tuning", "Settings and jobs"]  # three seeds make no control
    assert [section.title for section in found.sections][:4] == titles

    # -- the same from Python, under other labels: every job is done ------------------------------------------------
    optimizers = {"AdamW": torch.optim.AdamW, "Muon": muonlab.MuonAdamW}
    tiny = {"horizons": 1, "extensions": 0, "trials": 4, "seeds": 3, "steps": 6, "evaluations": 2}
    again = muonlab.compare("compare_digits.py:task", optimizers, out="first", **tiny)
    assert "finished" not in capsys.readouterr().err
    assert again.verdict.answer == found.verdict.answer
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10))
    for label, made in (("AdamW", torch.optim.AdamW), ("Muon", muonlab.MuonAdamW)):
        optimizer = eval(again.best[label], {"torch": torch, "muonlab": muonlab, "model": model})
        assert isinstance(optimizer, made)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("three", "returned 3 values; expected"),
        ("no_net", "returned a int as model; expected a torch.nn.Module"),
        ("nothing", "returned None; expected"),
        ("loss_class", r"returned the class CrossEntropyLoss as loss; expected an object of it, CrossEntropyLoss\(\)"),
        ("no_seed", r"takes no seed; expected a function task\(seed\)"),
        ("empty", "train is empty; expected at least one example"),
        ("fails", "raised OSError: no disk for seed 0; expected"),
        ("nan", "the loss of the first batch is nan; check the data for NaN"),
        ("detached", "the loss has no gradient"),
        ("vector", r"the loss returned \(32, 2\); expected a scalar or one number per example, \(32,\)"),
        ("labels", r"the loss raised IndexError: Target \d is out of bounds"),
        ("dicts", r"train yields a dict; expected batches \(inputs, targets\), both tensors"),
        ("numbers", "returned an object of int as train; expected a loader, a dataset"),
        ("wide", r"the model does not read inputs \(32, 4\) of float32: RuntimeError"),
        ("stream", r"a dataset without length as train; expected batches of it, such as DataLoader\(train, 32\)"),
        ("once", "a generator as train, which yields its batches once; expected a loader"),
        ("nested", r"train yields a tuple \(tuple, Tensor\); expected batches \(inputs, targets\), both tensors"),
        ("double", "the model has float64 parameters; expected float32"),
        ("other_labels", r"raised IndexError.* and targets \(64,\) of int64 of batch 1 of validation"),
        ("late_labels", r"raised IndexError: Target 7 .* of batch 2 of validation"),
        ("nan_validation", "the loss of batch 1 of validation is nan; check the data for NaN"),
        ("late_nan", "the loss of batch 2 of validation is nan; check the data for NaN"),
        ("other_test", r"the model does not read inputs \(64, 3\) of float32 of batch 1 of test"),
        ("no_test", "test is empty; expected at least one batch"),
        ("unseeded", "two calls with seed 0 return models with different weights"),
        ("unseeded_inputs", "two calls with seed 0 return other inputs in the first 2 batches of train"),
        ("unseeded_targets", "two calls with seed 0 return other targets in the first 2 batches of train"),
        ("unseeded_validation", "two calls with seed 0 return other targets in the first batch of validation"),
        ("column", r"broadcasts outputs \(32, 1\) of float32 and targets \(32,\) of float32 to a value for each pair"),
        ("own_column", r"broadcasts outputs \(32, 1\) .* such as by outputs.squeeze\(-1\)"),
        ("exits", "raised SystemExit: no data for seed 0; expected"),
        ("exits_late", "train raised SystemExit: no data in batch 2 of epoch 1 for seed 0"),
        ("half", r"the model has bfloat16 parameters; expected float32, such as model.float\(\)"),
        ("meta", "the model is on the device meta, without weights"),
        ("whole", r"does not read inputs \(32, 4\) of int64: .*; where it expects numbers, give inputs.float\(\)"),
        ("targets", r"train yields a tuple \(Tensor, dict\); expected batches \(inputs, targets\)"),
        ("outputs", "the model returned a dict; expected a tensor, such as the logits"),
        ("lazy", "0.weight of the model has no shape yet; call the model on a batch in the function"),
        ("no_length", "a dataset without length as train; expected batches of it, .* or a dataset with __len__"),
        ("none", "returned an object of NoneType as train; expected a loader, a dataset"),
        ("hollow", "train yields a batch without examples, batch 1; leave it out"),
        ("sparse", "0.weight has sparse gradients; expected dense ones, with sparse=False"),
        ("penalty", "of batch 1 of validation; evaluations compute no gradients, so it may ask for none there"),
        ("backward", "the backward pass raised RuntimeError: no way back"),
    ],
)
def test_what_a_task_may_get_wrong_is_named_before_anything_runs(task, message):
    asked = asked_of(f"own.py:{task}")
    with pytest.raises(ValueError, match=message):
        check(trained=asked.trained.model_dump(mode="json"), optimizers={})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to train; give a task"),
        (["task=own.py"], "task=own.py names no function; expected one of that file, such as own.py:task"),
        (["own.py:task", "muon.lr=0.001-0.1"], "expected a range, such as muon.lr=1e-4..1e-2, or one number above 0"),
        (["own.py:missing"], "there is no 'missing' in own.py"),
        (["own.py:task", "own.py:normed"], "2 tasks are given; expected one"),
        (["own.py:task", "trials=1"], "trials=1 is not valid; expected one whole number from 2"),
        (["own.py:task", "seeds=0"], "seeds=0 is not valid"),
        (["own.py:task", "steps=0"], "^steps=0 is not valid; expected at least 1"),
        (
            ["own.py:task", "sgd.lr=0.1"],
            "sgd.lr has no effect: sgd is not in the study; add it to optimizers=, or leave",
        ),
        (["own.py:task", "steps=5", "budget=6"], "steps and budget are one setting"),
        (["own.py:task", "adamw.lr=1e-2..1e-4"], "adamw.lr=1e-2..1e-4 is not valid; expected a range that rises"),
        (["own.py:task", "adamw.lr=a..b"], "adamw.lr=a..b is not valid; expected two numbers above 0"),
        (["own.py:task", "adamw.lr=1e-3,1e-2"], "expected one range, adamw.lr=LOW..HIGH, or one value"),
        (["own.py:task", "adamw.beta1=0.9..1.5"], "expected a range of values that adamw takes, which 1.5 is not"),
        (
            ["own.py:task", "muon.steps=1..10"],
            "muon.steps=1..10 is not valid; expected one value; steps is not a number",
        ),
        (["own.py:task", "muon.nesterov=0.1..0.9"], "expected one value; nesterov is not a number that can be drawn"),
        (["own.py:task", "muon.lrr=1"], "unknown setting 'muon.lrr'; did you mean 'muon.lr'"),
        (["own.py:task", "baseline=lion"], "baseline=lion is none of the optimizers; expected one of adamw, muon"),
        (["own.py:task", "optimizers=adamw,b=adamw"], "adamw and b are one optimizer with the same settings"),
        (["own.py:task", "net=own.py:net"], "task= returns net, data and loss; leave out net"),
    ],
)
def test_words_that_cannot_be_say_what_to_do(words, message):
    with pytest.raises(UsageError, match=message):
        ask(words)


def test_ranges_and_held_settings_of_the_words():
    asked = asked_of("own.py:task", "adamw.lr=1e-4..1e-2", "adamw.weight_decay=0.1", "muon.lr=0.02", "trials=5")
    own = asked.searches["adamw"]
    assert list(own.ranges) == ["lr", "beta1"]
    assert all(1e-4 <= point["lr"] <= 1e-2 and "weight_decay" not in point for point in own.points)
    assert asked.optimizers["adamw"].weight_decay == 0.1
    assert {point["lr"] for point in asked.searches["muon"].points} == {0.02}
    assert own.points[0]["lr"] == 1e-3


def test_from_python_the_jobs_are_said_by_name(capsys):
    muonlab.compare("own.py:task", {"AdamW": "adamw", "Muon": "muon"}, trials=2, seeds=2, steps=2, workers=1)
    said = capsys.readouterr().err
    assert "AdamW, search: finished" in said
    assert "Muon, seeds 0 to 1: finished" in said


def test_from_python_what_is_no_dict_or_stands_in_no_file_is_named(monkeypatch):
    with pytest.raises(UsageError, match=r"optimizers=\['adamw', 'muon'\] is not valid; expected a dict"):
        muonlab.compare("own.py:task", ["adamw", "muon"], target=None)  # pyright: ignore[reportArgumentType]
    for file in (None, "<stdin>"):  # of a notebook, and of standard input
        main_module = ModuleType("__main__")
        exec("def task(seed): ...", main_module.__dict__)
        main_module.__file__ = file
        monkeypatch.setitem(sys.modules, "__main__", main_module)
        with pytest.raises(UsageError, match="task of a notebook or of standard input, which a worker cannot import"):
            muonlab.compare(main_module.task)


def test_tasks_of_one_name_in_two_files_have_folders_of_their_own():
    shutil.copy("own.py", "other.py")
    shutil.copy("own.py", "other_module.py")
    names = [default_folder(asked_of(f"{file}:task")) for file in ("own.py", "other.py", "other_module")]
    assert names == ["compare-own-task", "compare-other-task", "compare-other_module-task"]
    assert default_folder(asked_of("net=own.py:net", "data=digits")) == "compare-net-digits"


# -- what is decided ---------------------------------------------------------------------------------


def noise(seed, scale):
    return scale * np.random.default_rng(seed).normal()


@pytest.mark.parametrize(
    ("loss", "answer", "words"),
    [
        (lambda arm, point, seed: (0.5 if arm == "muon" else 0.9) + noise(seed, 0.01), "yes", "Muon ends below AdamW"),
        (lambda arm, point, seed: (0.9 if arm == "muon" else 0.5) + noise(seed, 0.01), "no", "Muon ends above AdamW"),
        (
            lambda arm, point, seed: 0.5 + noise([seed, arm == "muon"], 1e-4),
            "no",
            "Muon and AdamW differ by less than 1 %",
        ),
        (
            lambda arm, point, seed: 0.5 + noise([seed, arm == "muon"], 0.2),
            "inconclusive",
            "because the interval contains 0 and differences that would matter",
        ),
        (
            lambda arm, point, seed: None if arm == "muon" and seed < 3 else 0.5,
            "inconclusive",
            "because 3 of 8 Muon runs diverged",
        ),
        (
            lambda arm, point, seed: None if arm == "muon" and seed < 8 else 0.5,
            "no",
            "Muon diverges more often than AdamW: 8 of 8 against 0 of 8 final runs",
        ),
    ],
)
def test_the_verdict_is_right_where_the_answer_is_known(loss, answer, words):
    verdict = judged(asked_of("own.py:task", "trials=8", "seeds=8"), loss)
    assert verdict.answer == answer
    assert words in verdict.sentence


SMALL = ["trials=8", "seeds=8"]


def test_where_final_runs_diverge_lower_rates_or_more_seeds_are_advised_whatever_the_edge():
    def loss(arm, point, seed):
        return None if arm == "muon" and seed == 1 else beyond(arm, point, seed)

    verdict = judged(asked_of("own.py:task", *SMALL), loss)
    assert "because 1 of 8 Muon runs diverged." in verdict.sentence
    assert verdict.sentence.endswith("learning rates, muon.lr=LOW..HIGH, or more seeds, such as seeds=16.")


def test_where_a_job_failed_the_advice_is_to_mend_it_first():
    asked = asked_of("own.py:task", *SMALL)
    known = steps(asked, invented(asked, lambda arm, point, seed: 0.5))
    (found,) = find(asked, known, {})
    assert "Finish the study" in Switch(found, found.arm("adamw")).candidates[0].settles
    failed = JobRecord("1", "AdamW, search", {}, Path("x"), "failed", "no disk", None, {})
    found = replace(found, records=(failed,))
    assert Switch(found, found.arm("adamw")).candidates[0].settles.startswith("Jobs failed: mend what `muonlab show`")


def test_a_difference_that_is_sure_and_too_small_to_matter_is_no_reason_to_switch():
    verdict = judged(
        asked_of("own.py:task", *SMALL),
        lambda arm, point, seed: 0.5 - 1e-4 * (arm == "muon") + noise([seed, arm == "muon"], 1e-6),
    )
    assert verdict.answer == "no"
    assert "Muon and AdamW differ by less than 1 %" in verdict.sentence


def test_an_interval_without_0_that_holm_does_not_decide_is_not_said_to_contain_it():
    asked = asked_of("own.py:task", "optimizers=adamw,muon,sgd,c=torch.optim:RAdam,d=torch.optim:NAdam", *SMALL)

    def loss(arm, point, seed):
        return 0.5 + 0.1 * noise([seed, arm == "muon"], 1) - {"muon": 0.125}.get(arm, 0)

    found = invented(asked, loss)
    (all_found,) = find(asked, steps(asked, found), found)
    muon = next(each for each in Switch(all_found, all_found.arm("adamw")).candidates if each.arm.label == "muon")
    assert muon.effect is not None
    assert muon.effect.estimate.upper is not None
    assert (muon.effect.estimate.upper < 0, muon.outcome) == (True, "undecided")
    assert "among 4 candidates, Holm’s p is" in muon.why


# -- beyond an edge, and other horizons ------------------------------------------------------------


def beyond(arm, point, seed):
    """Muon's best rate lies at .5, a decade beyond the edge of its range; AdamW's within it."""
    best = {"muon": -0.3, "adamw": -2}[arm]
    return 0.5 + 0.1 * abs(np.log10(point["lr"]) - best) + noise([seed, arm == "muon"], 1e-3)


def test_a_best_rate_near_an_edge_gives_every_arm_as_many_trials_beyond():
    asked = asked_of("own.py:task", "extensions=1", *SMALL)
    found = invented(asked, beyond)
    (all_found,) = find(asked, steps(asked, found), found)
    trials = all_found.runs.trials
    assert {label: len(own.points) for label, own in trials.items()} == {"muon": 12, "adamw": 12}
    assert all(0.1 <= point["lr"] <= 1 for own in trials.values() for point in own.points[8:])
    assert trials["muon"].winner is not None
    assert trials["muon"].winner >= 8
    assert trials["adamw"].winner < 8
    assert "edge" not in Switch(all_found, all_found.arm("adamw")).candidates[0].why
    inside = invented(asked, lambda arm, point, seed: beyond("adamw", point, seed))
    assert not any(step.name.endswith("part 2") for step in (each.job for each in steps(asked, inside)))


def test_a_loser_whose_best_rate_lies_near_an_edge_is_not_said_to_be_worse():
    verdict = judged(asked_of("own.py:task", *SMALL), beyond)
    assert "because the best learning rate of Muon lies near the edge of its range" in verdict.sentence
    assert verdict.sentence.endswith(" Search further (extensions=1), or give another range, muon.lr=LOW..HIGH.")


def test_each_horizon_has_a_training_and_a_sentence_of_its_own():
    asked = asked_of("own.py:task", "horizons=0.5,1", *SMALL)
    assert [(part.name, part.training.budget) for part in asked.parts] == [
        ("own:task", 6),
        ("own:task, 3 steps", 3),
    ]
    found = invented(asked, lambda arm, point, seed: 0.9 + noise([seed, arm == "muon"], 1e-3))
    budgets = [step.config.training.budget for step in steps(asked, found)]
    assert budgets == [6] * 8 + [3] * 8
    assert len(outline(asked)) == len(found) == 16
    verdict = judged(asked, lambda arm, point, seed: 0.9 + noise([seed, arm == "muon"], 1e-3))
    assert any(words.startswith("With 3 steps: Muon and AdamW differ by less than 1 %") for words in verdict.more)


def test_the_present_setting_of_the_baseline_is_its_first_trial_and_has_final_runs():
    asked = asked_of("own.py:task", "present.lr=0.3", "present.weight_decay=0", *SMALL)
    found = invented(asked, lambda arm, point, seed: 0.5 + 0.01 * point["lr"] + noise([seed, arm == "muon"], 1e-3))
    now = {"lr": 0.3, "beta1": 0.9, "weight_decay": 0.0, "beta2": 0.999}
    assert asked.searches["adamw"].points[0] == now
    assert asked.searches["muon"].points[0]["lr"] == 1e-3
    present = [step.config for step in steps(asked, found) if step.role == "present"]
    assert [(each.optimizer.name, each.points, each.is_final) for each in present] == [("adamw", (now,), True)] * 2
    assert [seed for each in present for seed in each.seeds] == list(range(8))
    (all_found,) = find(asked, steps(asked, found), found)
    assert all_found.runs.present[0] == pytest.approx(0.503, abs=0.004)
    switch = Switch(all_found, all_found.arm("adamw"))
    both = [all_found.runs.losses("muon"), all_found.runs.present]
    (gain,) = {switch.from_present("muon").estimate.value}
    assert gain == pytest.approx(np.mean([both[0][seed] - both[1][seed] for seed in range(8)]))
    (words,) = on_present(switch)
    assert words.startswith("AdamW as you have it now (lr 0.3, weight_decay 0) ends at 0.50")
    assert "Minus that, at its best setting: Muon " in words
    with pytest.raises(
        UsageError, match=r"present.gamma is no setting .* expected present.lr, present.beta1, present.w"
    ):
        asked_of("own.py:task", "present.gamma=1")
    with pytest.raises(UsageError, match=r"present.lr=fast is not valid; expected a number"):
        asked_of("own.py:task", "present.lr=fast")


def test_a_study_that_is_asked_for_more_trials_keeps_those_that_are_done():
    few, more = asked_of("own.py:task", "trials=16"), asked_of("own.py:task", "trials=40")
    names = {step.job.id for step in steps(few, {})}
    assert names < {step.job.id for step in steps(more, {})}


def test_losses_that_never_vary_are_undecided_for_that_reason():
    verdict = judged(asked_of("own.py:task", *SMALL), lambda arm, point, seed: 0.5)
    assert "because no difference varies: no interval" in verdict.sentence


@pytest.mark.parametrize(("first", "where"), [(0, "in every trial"), (FRESH_FROM, "with fresh seeds at each of its")])
def test_an_arm_that_diverges_before_its_final_runs_is_said_to_and_the_study_is_not_to_be_finished(first, where):
    verdict = judged(
        asked_of("own.py:task", *SMALL), lambda arm, point, seed: None if arm == "muon" and seed >= first else 0.5
    )
    assert "because Muon diverged before any final run" in verdict.sentence
    assert any(f"Muon diverged {where}" in words for words in verdict.cautions)
    assert "Finish the study" not in verdict.sentence
    assert verdict.sentence.endswith(" Give a lower range of learning rates, muon.lr=LOW..HIGH.")


def test_a_final_run_whose_last_training_loss_alone_is_not_finite_has_diverged():
    asked = asked_of("own.py:task", *SMALL)
    found = invented(asked, lambda arm, point, seed: 0.5 + noise([seed, arm == "muon"], 0.01))
    for step in steps(asked, found):
        if (step.role, step.arm) == ("final", "muon"):
            member = found[step.job.id]["members"][0]
            member |= {"diverged_at": 6, "train_loss": [2.0, 1.0, None]}
    (all_found,) = find(asked, steps(asked, found), found)
    assert Switch(all_found, all_found.arm("adamw")).lost("muon") == (2, 8)


@pytest.mark.parametrize(("seeds", "scale", "shift"), [(4, 0.02, 0.002), (8, 0.004, 0.002), (8, 0.004, 0.0035)])
def test_what_would_settle_it_is_never_fewer_seeds_than_there_are(seeds, scale, shift):
    verdict = judged(
        asked_of("own.py:task", "trials=8", f"seeds={seeds}"),
        lambda arm, point, seed: 0.5 + shift * (arm == "muon") + noise([seed, arm == "muon"], scale),
    )
    for words in verdict.more:
        if "seeds=" in words:
            assert int(words.split("seeds=")[1].split(")")[0].split(",")[0]) > seeds


def test_two_copies_of_one_optimizer_are_told_apart_in_few_of_many_studies():
    """Of 60 studies of two equal arms at most 8 call a winner: 5 % and three standard errors."""
    asked = asked_of("own.py:task", "trials=8", "seeds=5")
    called = 0
    for study in range(60):

        def loss(arm, point, seed, study=study):
            own = np.random.default_rng([study, arm == "muon", int(1e6 * point["lr"]), seed])
            return 0.5 + 0.1 * (np.log10(point["lr"]) + 2) ** 2 + 0.02 * own.normal()

        found = invented(asked, loss)
        (all_found,) = find(asked, steps(asked, found), found)
        (candidate,) = Switch(all_found, all_found.arm("adamw")).candidates
        called += candidate.outcome in ("better", "worse")
    assert called <= 8


def test_what_would_settle_an_inconclusive_comparison_is_said():
    wide = judged(
        asked_of("own.py:task", "trials=8", "seeds=4"), lambda arm, point, seed: 0.5 + noise([seed, arm == "muon"], 0.2)
    )
    assert "seeds would settle it (seeds=" in wide.sentence or "try more trials" in wide.sentence


def test_an_optimizer_that_diverges_at_times_has_final_runs_that_count_how_often():
    def loss(arm, point, seed):
        return None if arm == "muon" and seed < FRESH_FROM + FRESH and seed % 3 else 0.5 + noise([seed, 1], 0.01)

    asked = asked_of("own.py:task", *SMALL)
    found = invented(asked, lambda arm, point, seed: loss(arm, point, seed) if seed != SEARCH_FROM else 0.5)
    (all_found,) = find(asked, steps(asked, found), found)
    switch = Switch(all_found, all_found.arm("adamw"))
    assert not switch.has_no_winner("muon")
    assert switch.lost("muon") == (5, 8)
    assert switch.candidates[0].outcome == "worse"
