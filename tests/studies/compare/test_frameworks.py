"""`muonlab compare` on a LightningModule and on a transformers Trainer: their own loops, the study's optimizers."""

import gc
import json
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import muonlab
from inline import InlinePool
from muonlab.jobs import local
from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.ask import ask
from muonlab.studies.compare.config import Task, Train, Training
from muonlab.studies.compare.work.job import check, run
from muonlab.study import dotted
from muonlab.study.constructor import constructor
from muonlab.study.optimizers import AdamW, Custom, Muon
from muonlab.train.seeds import forked

pytestmark = pytest.mark.xdist_group("frameworks")  # each takes seconds to import

EXAMPLES = Path(__file__).parents[3] / "examples"
LIGHTNING = """
import itertools
import lightning as L
import torch
from torch import nn

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1).gt(0).long()

class Module(L.LightningModule):
    name, optimizers_of = "val_loss", None
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        outputs = self.net(batch[0])
        self.log(self.name, nn.functional.cross_entropy(outputs, batch[1]))
        self.log("val_acc", (outputs.argmax(1) == batch[1]).float().mean())
    def test_step(self, batch, index):
        self.log("test_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
    def configure_optimizers(self):
        if self.optimizers_of is not None:
            return self.optimizers_of(self)
        optimizer = torch.optim.SGD(self.parameters(), lr=1e9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

class Data(L.LightningDataModule):
    def loader(self, start, end, shuffle=False):
        part = torch.utils.data.TensorDataset(X[start:end], Y[start:end])
        return torch.utils.data.DataLoader(part, 8, shuffle=shuffle)
    def train_dataloader(self): return self.loader(0, 40, True)
    def val_dataloader(self): return self.loader(40, 56)
    def test_dataloader(self): return self.loader(56, 64)

OPTIONS = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05}
def task(seed): return Module(), Data()
def options(seed): return {"model": Module(), "data": Data(), "trainer": OPTIONS, "metric": "val_loss"}

CALLS = itertools.count()
def named(seed):
    module = Module()
    module.name = "val/error"
    return module, Data()
def manual(seed):
    module = Module()
    module.automatic_optimization = False
    return module, Data()
def several(seed):
    module = Module()
    module.optimizers_of = lambda own: [torch.optim.SGD(own.parameters(), lr=0.1) for _ in range(2)]
    return module, Data()
SHARED = Module()
def shared(seed): return SHARED, Data()
class Unseeded(Module):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.net[0].bias.add_(next(CALLS))
def unseeded(seed): return Unseeded(), Data()
class Shuffled(Data):
    def train_dataloader(self):
        start = next(CALLS)
        return self.loader(start, start + 8)
def shuffled(seed): return Module(), Shuffled()
def loaders(seed): return Module(), Data().train_dataloader()
def unknown(seed): return {"model": Module(), "data": Data(), "metrics": "val_loss"}
def keyword(seed): return {"model": Module(), "data": Data(), "trainer": {"clip": 1}}
class NoValidation(Data):
    def val_dataloader(self): return []
def no_validation(seed): return Module(), NoValidation()
class Nan(Module):
    def training_step(self, batch, index): return super().training_step(batch, index) * float("nan")
def nan(seed): return Nan(), Data()
class Fails(Module):
    def __init__(self, seed):
        super().__init__()
        self.seed = seed
    def training_step(self, batch, index):
        if self.seed == 1 and self.global_step == 3:
            raise OSError("no disk")
        return super().training_step(batch, index)
def fails(seed): return Fails(seed), Data()
def fails_at_once(seed): return Fails(1), Data()
def stops(seed):
    stop = L.pytorch.callbacks.EarlyStopping("val_loss", mode="max", stopping_threshold=0.0)
    return {"model": Module(), "data": Data(), "trainer": {"callbacks": stop}}

class Draws(torch.optim.SGD):
    def step(self, closure=None):
        torch.rand(3)
        return super().step(closure)
def two(params, lr=0.1): return [torch.optim.SGD([p], lr=lr) for p in params]
def plain(params, lr=0.0): return torch.optim.SGD(params, lr=lr)
def draws(params, lr=0.0): return Draws(params, lr=lr)
"""
TRAINER = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

TOKENS = torch.randint(0, 20, (40, 12), generator=torch.Generator().manual_seed(0))
ROWS = [{"input_ids": row, "labels": row} for row in TOKENS]
CONFIG = {"vocab_size": 20, "n_positions": 12, "n_embd": 8, "n_layer": 1, "n_head": 2}
def model(): return GPT2LMHeadModel(GPT2Config(**CONFIG, bos_token_id=None, eos_token_id=None))
def arguments(**more):
    return TrainingArguments(output_dir="out/of", per_device_train_batch_size=4, gradient_accumulation_steps=2,
                             use_cpu=True, **more)
PARTS, TEST = {"train_dataset": ROWS[:24], "eval_dataset": ROWS[24:32]}, ROWS[32:]

def task(seed): return Trainer(model(), arguments(), **PARTS)
def by_init(seed): return Trainer(model_init=model, args=arguments(), **PARTS), TEST
def no_validation(seed): return Trainer(model(), arguments(), train_dataset=ROWS)
def no_labels(seed): return Trainer(model(), arguments(), train_dataset=ROWS, eval_dataset={"a": ROWS})
SHARED = model()
def shared(seed): return Trainer(SHARED, arguments(), **PARTS)
"""
POINTS = {
    "adamw": {"lr": 0.03, "beta1": 0.8, "weight_decay": 0.1},
    "muon": {"lr": 0.03, "adamw_factor": 0.5, "momentum": 0.9, "weight_decay": 0.1},
}
HALF = [1 / 2, 1, 1, 3 / 4, 1 / 2, 1 / 4]  # learning rate of each step: 2 of warm-up, then linear down
TRAINING = Training(budget=6, evaluations=3, warmup=1 / 3)


@pytest.fixture(params=["Lightning", "Trainer"])
def framework(request):
    return request.param


@pytest.fixture
def of_lightning():
    return _own("lightning", "of_lightning.py", LIGHTNING)


@pytest.fixture
def of_trainer():
    pytest.importorskip("accelerate")
    return _own("transformers", "of_trainer.py", TRAINER)


def _own(package, name, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(package)
        Path(name).write_text(text)
        dotted.load("task", f"{name}:task")
        gc.freeze()  # accelerate collects garbage in every run, which takes as long as there are objects
        return name


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def job(task, optimizer, points, seeds, **more):
    trained = Task(task=dotted.find("task", task))
    return Train(trained=trained, training=TRAINING, optimizer=optimizer, points=points, seeds=seeds, **more)


def trained(task, optimizer, points, seeds=(1,), folder="job", **more):
    config = job(task, optimizer, points, seeds, **more).model_dump(mode="json")
    return run(config=config, folder=folder)


def by_hand(name, net, point):
    """The optimizer and the schedule that a user would write."""
    if name == "adamw":
        betas = (point["beta1"], 0.98)
        optimizer = torch.optim.AdamW(net.parameters(), point["lr"], betas, weight_decay=point["weight_decay"])
    else:
        optimizer = muonlab.MuonAdamW(
            net,
            lr=point["lr"],
            adamw_lr=point["lr"] * point["adamw_factor"],
            momentum=point["momentum"],
            betas=(0.9, 0.98),
            weight_decay=point["weight_decay"],
            adamw_weight_decay=point["weight_decay"],
            adjust_lr_fn="match_rms_adamw",
            method="quintic",
        )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: [*HALF, 0.0][step])


CONFIGS = {"adamw": AdamW(), "muon": Muon()}


# -- a run is the framework's own run --------------------------------------------------------------


@pytest.mark.parametrize("name", list(POINTS))
@pytest.mark.parametrize("task", ["task", "options"])
def test_a_run_of_a_lightning_module_is_lightnings_own_run(of_lightning, task, name):
    import lightning

    (member,) = trained(f"{of_lightning}:{task}", CONFIGS[name], [POINTS[name]], is_final=True)["members"]
    with forked(1, "task"):
        made = dotted.load("task", f"{of_lightning}:{task}")(1)
    module, data = made if task == "task" else (made["model"], made["data"])
    options = {} if task == "task" else made["trainer"]

    def configure(own):
        optimizer, schedule = by_hand(name, own, POINTS[name])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module.optimizers_of = configure
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.seed_everything(1, verbose=False)
        still = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(max_steps=6, accelerator="cpu", limit_val_batches=0, **still, **options)
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 6
        trainer.limit_val_batches = 1.0
        found = {**trainer.validate(module, data, verbose=False)[0], **trainer.test(module, data, verbose=False)[0]}
    keys = "validation_loss", "validation_accuracy"
    assert [member[key][-1] for key in keys] == pytest.approx([found["val_loss"], found["val_acc"]], rel=1e-6)
    assert member["test_loss"] == pytest.approx(found["test_loss"], rel=1e-6)
    assert member["steps"] == [0, 2, 4, 6]


@pytest.mark.parametrize("name", list(POINTS))
@pytest.mark.parametrize("task", ["task", "by_init"])
def test_a_run_of_a_trainer_is_its_own_run(of_trainer, task, name):
    import transformers

    (member,) = trained(f"{of_trainer}:{task}", CONFIGS[name], [POINTS[name]], is_final=True)["members"]
    assert not Path("out").exists()  # the output_dir that a Trainer makes
    own = dotted.load("task", f"{of_trainer}:model").__globals__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = own["arguments"](max_steps=6, seed=1, disable_tqdm=True, save_strategy="no", logging_steps=1)
        with torch.random.fork_rng():
            if task == "task":
                with forked(1, "task"):
                    model = own["model"]()
                torch.manual_seed(1)
            else:
                torch.manual_seed(1)
                model = own["model"]()  # where Trainer calls model_init: with its seed, and training goes on from there
            state = torch.get_rng_state()
            both = by_hand(name, model, POINTS[name])
            trainer = transformers.Trainer(model, arguments, optimizers=both, **own["PARTS"])
            torch.set_rng_state(state)
            trainer.train()
        assert member["validation_loss"][-1] == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-6)
        test_loss = None if task == "task" else trainer.evaluate(own["TEST"])["eval_loss"]
        assert member["test_loss"] == (test_loss and pytest.approx(test_loss, rel=1e-6))
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    expected = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert member["train_loss"][1:] == pytest.approx(expected, rel=1e-4)


def test_what_an_optimizer_draws_changes_neither_batches_nor_dropout(of_lightning):
    found = []
    for name in ("plain", "draws"):
        own = Custom(call=dotted.find("optimizers", f"{of_lightning}:{name}"))
        found.append(trained(f"{of_lightning}:task", own, [{"lr": 0.0}], folder=name)["members"][0])
    assert found[0]["train_loss"] == found[1]["train_loss"]
    assert len(set(found[0]["train_loss"])) == 4


def test_an_optimizer_that_is_several_is_refused(of_lightning):
    own = Custom(call=dotted.find("optimizers", f"{of_lightning}:two"))
    with pytest.raises(ValueError, match="two made a list; Lightning and Trainer take one torch"):
        trained(f"{of_lightning}:task", own, [{"lr": 0.1}])


def test_the_call_of_a_muon_with_settings_of_its_own_names_them():
    own = Muon(nesterov=False, steps=3, eps=1e-6, variant="normuon")
    call = constructor(own, {"lr": 0.01, "adamw_factor": 2.0})
    optimizer = eval(str(call), {"muonlab": muonlab, "model": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))})
    muon, adamw = optimizer.param_groups
    assert (muon["lr"], muon["nesterov"], muon["ns_steps"], adamw["lr"]) == (0.01, False, 3, 0.02)
    assert (adamw["eps"], muon["variant"]) == (1e-6, "normuon")


# -- runs that end early ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_that_diverges_ends_and_the_next_goes_on(of_lightning, name):
    high = {**POINTS[name], "lr": 1e30, "weight_decay": 0.0}
    members = trained(f"{of_lightning}:task", CONFIGS[name], [high, POINTS[name]])["members"]
    assert [member["diverged_at"] is None for member in members] == [False, True]
    assert members[0]["validation_loss"][-1] is None
    assert members[0]["failure"] is None


def test_a_run_that_raises_is_a_failure_with_its_reason_and_raises_where_it_is_the_first(of_lightning):
    task = partial(trained, optimizer=AdamW(), points=[POINTS["adamw"]])
    members = task(f"{of_lightning}:fails", seeds=(0, 1, 2))["members"]
    assert [member["failure"] for member in members] == [None, "OSError: no disk", None]
    assert [member["diverged_at"] for member in members] == [None, 4, None]

    # -- the first of a job is the first only where nothing of the study has worked -----------------------
    task(f"{of_lightning}:fails", seeds=(0,), folder="all/search")
    config = job(f"{of_lightning}:fails", AdamW(), [POINTS["adamw"]], (0,)).model_dump(mode="json")
    Path("all", "search", "config.json").write_text(json.dumps({"config": config}))
    (member,) = task(f"{of_lightning}:fails", seeds=(1,), folder="all/final", is_final=True)["members"]
    assert member["failure"] == "OSError: no disk"
    with pytest.raises(ValueError, match="fails_at_once: the run of seed 0 raised OSError: no disk"):
        task(f"{of_lightning}:fails_at_once", seeds=(0,), folder="other")
    with pytest.raises(ValueError, match="training stopped after 5 of 6 steps; expected all of them"):
        task(f"{of_lightning}:stops", seeds=(0,), folder="third")


def test_a_killed_job_goes_on_at_the_run_that_is_not_done(of_lightning):
    task = partial(trained, f"{of_lightning}:task", Muon(), [POINTS["muon"]], (0, 1, 2))
    task()
    result = Path("job", "result.json")
    whole = result.read_bytes()
    result.unlink()
    Path("job", "runs", "0-2", "run.json").unlink()
    first = Path("job", "runs", "0-0", "run.json")
    marked = json.loads(first.read_text()) | {"test_loss": 7.0}
    first.write_text(json.dumps(marked))
    assert task()["members"][0]["test_loss"] == 7.0  # it was not run again
    assert result.read_bytes() == whole.replace(b'"test_loss": null', b'"test_loss": 7.0', 1)


# -- what a task may get wrong ---------------------------------------------------------------------

MESSAGES = {
    "named": "the validation loop logged val/error, val_acc; expected val_loss or valid_loss or validation_loss",
    "manual": "Module has automatic_optimization=False",
    "several": "configure_optimizers of Module returns 2 optimizers; expected one",
    "shared": "two calls return one and the same model",
    "unseeded": "two calls with seed 0 return models with different weights",
    "shuffled": r"two calls with seed 0 have training losses [\d.]+ and [\d.]+ on their first batch",
    "loaders": "returned a DataLoader next to its LightningModule; expected",
    "unknown": "returned a dict with metrics; expected",
    "keyword": "lightning.Trainer cannot be made: .*clip",
    "no_validation": "Lightning has nothing to validate; expected a validation_step that logs val_loss",
    "nan": "a loss is not finite in the first step; check the data for NaN",
}


@pytest.mark.parametrize("task", list(MESSAGES))
def test_what_a_lightning_task_may_get_wrong_is_named_before_anything_runs(of_lightning, task):
    with pytest.raises(ValueError, match=MESSAGES[task]):
        check(trained=Task(task=dotted.find("task", f"{of_lightning}:{task}")).model_dump(), optimizers={})


OF_TRAINER = {
    "no_validation": "its Trainer has no train_dataset or no eval_dataset; expected both",
    "no_labels": "its evaluation returned eval_a_loss; expected eval_loss",
    "shared": "two calls return one and the same model",
}


@pytest.mark.parametrize("task", list(OF_TRAINER))
def test_what_a_task_with_a_trainer_may_get_wrong_is_named_before_anything_runs(of_trainer, task):
    with pytest.raises(ValueError, match=OF_TRAINER[task]):
        check(trained=Task(task=dotted.find("task", f"{of_trainer}:{task}")).model_dump(), optimizers={})


# -- from the words to the report ------------------------------------------------------------------


def test_a_comparison_ends_in_a_report_that_says_how_it_trained(framework, request, monkeypatch):
    file = request.getfixturevalue(f"of_{framework.lower()}")
    monkeypatch.setattr(local, "Pool", InlinePool)
    tiny = ["trials=2", "seeds=3", "steps=2", "evaluations=1", "horizons=1", "extensions=0"]
    study, asked, _ = ask([f"{file}:task", "optimizers=own=torch.optim:RAdam,muon", *tiny])
    for target, arguments in study.trials(asked):
        assert target.endswith(":check")
        check(**arguments)
    assert {event.kind for event in local.run(study, asked, Path("out"))} == {"started", "finished"}
    findings = analyse(Path("out"))
    (settings,) = [each for each in findings.sections if each.title == "Settings and jobs"]
    rows = dict(settings.elements[0].rows)
    assert rows["batch"] == "as the task sets it"
    assert rows["trained one after the other"] == f"{framework}’s own loop trains one run at a time"
    assert "(n = 3 + 3 seeds, 2 trials each, 2 steps)" in findings.verdict.sentence
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {file, "out"}


def test_the_example_of_lightning_is_a_task_with_a_test_set(of_lightning):
    (member,) = trained(f"{EXAMPLES}/compare_lightning.py:task", Muon(), [POINTS["muon"]], is_final=True)["members"]
    assert 0 < member["test_accuracy"] < 1
    assert member["validation_loss"][-1] < member["validation_loss"][0]


def test_the_example_of_a_trainer_is_a_task(of_trainer):
    check(trained=Task(task=dotted.find("task", f"{EXAMPLES}/compare_trainer.py:task")).model_dump(), optimizers={})
