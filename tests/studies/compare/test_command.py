"""`muonlab compare command=...`: runs of a program by real processes, read from its log, against a closed form."""

import json
import math
import random
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from muonlab.jobs import store
from muonlab.report.findings import Record, Table
from muonlab.studies.compare.analysis import analyse, find
from muonlab.studies.compare.ask import ask, default_folder, first_command, notes
from muonlab.studies.compare.command import Command
from muonlab.studies.compare.jobs import begin, outline, steps
from muonlab.studies.compare.programs import columns
from muonlab.studies.compare.sentences import verdict
from muonlab.studies.compare.switch import Switch
from muonlab.studies.compare.work import log
from muonlab.studies.compare.work.job import check, run
from muonlab.study.settings import UsageError
from muonlab.study.space import Space

# A quadratic by gradient descent with noise of its seed, without torch: a run takes a moment.
PROGRAM = """
import json, math, os, random, sys, time
optimizer, lr, decay, seed, steps, out, *how = sys.argv[1:]
lr, decay, seed, steps = float(lr), float(decay), int(seed), int(steps)
print("hello from", optimizer)
for word in how:
    if word == f"fail-{optimizer}" or (word == "fail-large" and lr > 0.01):
        print("out of luck"); sys.exit(3)
    if word == f"sleep-{optimizer}":
        time.sleep(60)
draw = random.Random(seed)
w, noise = 1 + draw.random(), 0.01 * draw.random() * (2 if optimizer == "muon" else 1)
rows = []
for step in range(steps):
    if step % 10 == 0 or step == steps - 1:
        rows.append((step, w * w + noise + (0.5 if optimizer == "muon" else 1.0), lr))
    if lr > 0.03 and "nan" in how:
        w = math.nan
    w -= 10 * lr * w + decay * 0
    if "crash" in how and step == 35 and lr > 0.01:
        sys.exit(4)
    if "short" in how and step == 5:
        break
kind = next((word for word in how if word in ("csv", "lines", "stdout", "silent", "torn")), "jsonl")
if kind in ("jsonl", "torn"):
    with open(out + "/log", "a") as file:
        for step, loss, rate in rows:
            file.write(json.dumps({"step": step, "rate": rate}) + "\\n")
            file.write(json.dumps({"step": step, "eval": {"loss": loss}, "acc": 1 / (1 + loss)}) + "\\n")
        if kind == "torn":
            file.write('{"step": 99, "eval": {"lo')
elif kind == "csv":
    with open(out + "/log", "w") as file:
        file.write("step,rate,eval.loss\\n")
        for step, loss, rate in rows:
            file.write(f"{step},{rate},\\n{step},,{loss}\\n")
        file.write("99,0.1")
elif kind == "lines":
    for step, loss, rate in rows:
        print(f"[step {step:4d}] lr {rate} val_loss {loss}")
elif kind == "stdout":
    for step, loss, rate in rows:
        print(json.dumps({"eval.loss": loss}))
"""
EXAMPLE = Path(__file__).parents[3] / "examples" / "compare_command" / "train.py"
WORDS = "{optimizer} {lr} {weight_decay} {seed} {steps} {run}"
STEPS = 60


@pytest.fixture(autouse=True)
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(PROGRAM)


def asked_of(how="", *words, metric="eval.loss", where="log={run}/log", trials=4):
    command = f"command='{sys.executable}' -S train.py {WORDS} {how}"
    return ask(
        [
            command,
            f"metric={metric}",
            *([where] if where else []),
            f"steps={STEPS}",
            f"trials={trials}",
            "horizons=1",
            *words,
        ]
    )[1]


def done(asked, roles=("search", "again", "final"), arms=("adamw", "muon")):
    """Do the jobs of some roles, and of some arms, in this process, and return their results."""
    begin(asked, Path("study"))
    found = {}

    def is_due(step):
        return step.job.id not in found and step.role in roles and step.arm in arms

    while todo := [step.job for step in steps(asked, found) if is_due(step)]:
        for job in todo:
            list(store.add(Path("study"), job))
            found[job.id] = run(config=job.config, folder=f"study/{job.id}")
    return found


def first(asked, role="search", arm="adamw", results=None):
    return next(step.job for step in steps(asked, results or {}) if (step.role, step.arm) == (role, arm))


def space_of(asked, arm="adamw"):
    found = asked.searches[arm]
    assert isinstance(found, Space)
    return found


def searched(asked):
    """Do the trials of AdamW, and return the run of each with its setting."""
    found = done(asked, roles=("search",), arms=("adamw",))
    return [(result["points"][0], *result["members"]) for result in found.values()]


def loss_of(lr, seed, step, floor=1.0):
    """The closed form of what the program does."""
    draw = random.Random(seed)
    start, noise = 1 + draw.random(), 0.01 * draw.random() * (2 if floor == 0.5 else 1)
    return (start * (1 - 10 * lr) ** step) ** 2 + noise + floor


def test_it_is_tuned_the_better_one_wins_and_the_answer_is_the_command_to_paste():
    rates = "muon.lr=0.05..0.19", "adamw.lr=0.05..0.19"
    asked = asked_of("", *rates, "seeds=3", "accuracy=acc", "train_metric=rate", trials=3)
    results = done(asked)
    names = [step.job.name for step in steps(asked, results)]
    assert sorted(names) == sorted(name for name, _ in outline(asked))
    assert len({*names}) == len(names)
    (found,) = find(asked, steps(asked, results), results)
    for arm, floor in (("adamw", 1.0), ("muon", 0.5)):
        runs = {
            role: [results[step.job.id] for step in steps(asked, results) if (step.role, step.arm) == (role, arm)]
            for role in ("search", "again", "final")
        }
        assert {role: len(own) for role, own in runs.items()} == {"search": 3, "again": 9, "final": 3}
        for result in runs["final"]:
            (point,), (member,) = result["points"], result["members"]
            at = {step: loss_of(point["lr"], member["seed"], max(0, step - step % 10), floor) for step in (0, 15, 30)}
            at[STEPS] = loss_of(point["lr"], member["seed"], STEPS - 1, floor)
            curve = dict(zip(asked.training.steps, member["validation_loss"], strict=True))
            assert {step: curve[step] for step in at} == pytest.approx(at)
            assert member["train_loss"] == [point["lr"]] * len(asked.training.steps)
            assert member["validation_accuracy"][-1] == pytest.approx(1 / (1 + at[STEPS]))
        again = {result["points"][0]["lr"]: [] for result in runs["again"]}
        for result in runs["again"]:
            again[result["points"][0]["lr"]].append(result["members"][0]["validation_loss"][-1])
        assert found.runs.points[arm]["lr"] == min(again, key=lambda lr: sum(again[lr]))
    said = verdict(Switch(found, found.arm("adamw")))
    assert said.answer == "yes"
    assert "Muon ends below AdamW: a validation loss of 0.5" in said.sentence
    lr, decay = found.runs.points["muon"]["lr"], found.runs.points["muon"]["weight_decay"]
    assert said.more[-1].endswith(f"train.py muon {lr} {decay} {{seed}} {STEPS} {{run}}")


@pytest.mark.parametrize(
    ("how", "metric", "where"),
    [
        ("jsonl", "eval.loss", "log={run}/log"),
        ("torn", "eval.loss", "log={run}/log"),
        ("csv", "eval.loss", "log={run}/log"),
        ("lines", "val_loss", r"pattern=step +(?P<step>\d+)\] .*val_loss (?P<val_loss>\S{2,30})"),
        ("stdout", "eval.loss", None),
    ],
)
def test_every_form_of_log_gives_the_same_losses(how, metric, where):
    found = searched(asked_of(how, metric=metric, where=where, trials=2))
    ends = [run["validation_loss"][-1] for _, run in found]
    assert ends == pytest.approx([loss_of(point["lr"], 1000, STEPS - 1) for point, _ in found])
    assert [run["failure"] for _, run in found] == [None, None]


def test_larger_may_be_better():
    found = searched(asked_of(metric="-acc", trials=2))
    ends = [run["validation_loss"][-1] for _, run in found]
    assert ends == pytest.approx([-1 / (1 + loss_of(point["lr"], 1000, STEPS - 1)) for point, _ in found])


def test_runs_that_diverge_or_crash_are_results():
    found = searched(asked_of("nan", "adamw.lr=0.001..0.09", trials=5))
    lost = [run["diverged_at"] for _, run in found]
    assert lost == [10 if point["lr"] > 0.03 else None for point, _ in found]
    assert {10, None} == {*lost}

    for point, each in searched(asked_of("crash", "adamw.lr=0.001..0.09", trials=5)):
        is_lost = point["lr"] > 0.01
        assert each["diverged_at"] == (0 if is_lost else None)  # it had written nothing yet
        assert (each["failure"] or "").startswith("the program ended with exit status 4. " if is_lost else "")


def test_a_failed_run_of_a_program_that_has_worked_counts_as_a_miss_and_the_report_says_why():
    asked = asked_of("fail-large", "adamw.lr=0.001..0.09", "muon.lr=0.001..0.009")
    done(asked, roles=("search",))
    elements = [each for section in analyse(Path("study")).sections for each in section.elements]
    (rows,) = [each.rows for each in elements if isinstance(each, Table) and each.name == "failures"]
    space = space_of(asked)
    assert len(rows) == sum(point["lr"] > 0.01 for point in space.points)
    assert {row[0] for row in rows} == {"AdamW"}
    assert Switch(find(asked, steps(asked, {}), {})[0], asked.arms[0]).lost_word == "crashed or diverged"
    (asked_again,) = [each.title for each in elements if isinstance(each, Record) and "Config in full" in each.title]
    words = shlex.split(asked_again.removeprefix("Config in full: muonlab compare "))
    assert ask(words)[1] == asked  # the command in the report asks for the same
    assert rows[0][-1] == "the program ended with exit status 3. Its last lines:\nhello from adamw\nout of luck"
    shown = [columns(record.result or {}) for record in store.records(Path("study"))]
    assert sum(each["why"] == "the program ended with exit status 3" for each in shown) == len(rows)
    (said,) = [each for each in analyse(Path("study")).verdict.cautions if "early" in each]
    assert said.startswith(f"{len(rows)} of {len(shown)} runs ended early: the program ended with exit status 3 (see")


@pytest.mark.parametrize(
    ("how", "words", "message"),
    [
        ("fail-adamw", [], "ended with exit status 3. Its last lines:\nhello from adamw\nout of luck\nThe command was"),
        ("silent", [], "eval.loss is not in log={run}/log, which is not there; expected JSON lines or CSV"),
        ("short", [], "the last eval.loss is of step 0, of steps=60; expected the steps of the log"),
        ("sleep-adamw", ["timeout=0.2"], "the program was ended after timeout=0.2 seconds"),
    ],
)
def test_a_first_run_that_fails_stops_the_job_and_shows_the_last_lines(how, words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        searched(asked_of(how, *words))
    assert len(list(Path("study").glob("*/runs/*"))) == 1  # it stops after one run, not after all


def test_the_first_trial_of_each_optimizer_comes_before_all_others():
    asked = asked_of()
    assert [(step.arm, step.config.points) for step in steps(asked, {})] == [
        (arm.label, (space_of(asked, arm.label).defaults,)) for arm in asked.arms
    ]


# Bug: another metric= of the same program ran every program again, though their logs had it.
def test_another_metric_is_read_from_the_logs_of_the_runs_that_are_done():
    asked = asked_of("", trials=2)
    results = done(asked, arms=("adamw",))
    job = first(asked)
    started = {path: path.stat().st_mtime_ns for path in Path("study").glob("*/runs/*/output.txt")}
    other = asked_of("", metric="-acc", trials=2)
    assert notes(other, Path("study")) == [
        "acc is read from the logs of earlier runs where they have it; those do not run again"
    ]
    begin(other, Path("study"))
    again = run(config=first(other).config, folder=f"study/{first(other).id}")
    (before,), (after,) = results[job.id]["members"], again["members"]
    assert after["validation_loss"] == [
        None if loss is None else pytest.approx(-1 / (1 + loss)) for loss in before["validation_loss"]
    ]
    assert {path: path.stat().st_mtime_ns for path in Path("study").glob("*/runs/*/output.txt")} == started
    # One that no log has makes the programs run again, and it is said before.
    (said,) = notes(asked_of("", metric="perplexity", trials=2), Path("study"))
    assert said == "perplexity is not in the logs of the runs that are done, which hold step, rate, acc: they run again"
    assert notes(asked_of("nan", metric="-acc", trials=2), Path("study")) == []  # another command is another run


def test_a_name_that_the_log_lacks_is_answered_with_those_that_it_has():
    with pytest.raises(ValueError, match=r"val_loss is not in log=.run./log, which holds step, rate, acc; expected"):
        searched(asked_of(metric="val_loss"))


def test_an_interrupted_run_is_ended_and_runs_again_and_finished_ones_are_read(monkeypatch):
    asked = asked_of()
    job = first(asked)
    started = []

    def look(path, command):
        started.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log, "last_step", look)
        patch.setattr("muonlab.studies.compare.work.command.BETWEEN", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run(config=job.config, folder=f"study/{job.id}")
    place = Path("study", job.id, "runs", "0-1000")
    assert not (place / "run.json").exists()
    (place / "out" / "log").write_text('{"step": 59, "eval": {"loss": 0.0}}\n')  # of the attempt that was cut off
    (place / "out" / "checkpoint").write_text("kept")
    found = run(config=job.config, folder=f"study/{job.id}")
    assert found["members"][0]["validation_loss"][-1] == pytest.approx(loss_of(0.001, 1000, STEPS - 1))
    assert (place / "out" / "checkpoint").read_text() == "kept"

    Path("study", job.id, "result.json").unlink()
    Path("train.py").write_text("raise SystemExit(1)")
    assert run(config=job.config, folder=f"study/{job.id}") == found  # a run that is done is read
    other = job.config | {"seeds": [1]}
    with pytest.raises(ValueError, match=r"train.py has changed since the study was asked for; give the same command"):
        run(config=other, folder="study/other")


def test_another_program_is_another_job_but_only_for_the_optimizers_that_have_it():
    words = ["python train_{optimizer}.py {lr} {seed} {steps}", "metric=loss"]
    for name in ("adamw", "muon"):
        Path(f"train_{name}.py").write_text("first")
    before = {step.arm: step.job.id for step in steps(ask([f"command={words[0]}", words[1]])[1], {})}
    Path("train_muon.py").write_text("second")
    after = {step.arm: step.job.id for step in steps(ask([f"command={words[0]}", words[1]])[1], {})}
    assert before["adamw"] == after["adamw"]
    assert before["muon"] != after["muon"]


def test_placeholders_stand_for_the_settings_of_a_run():
    command = (
        "run --o={optimizer} '{lr:.1e} x' {adamw_lr} {adamw_factor} {beta2} {mine} {{literal}} {seed} {steps} "
        "{warmup_steps} {device} {run}"
    )
    asked = ask([f"command={command}", "metric=loss", "muon.mine=2..8", "adamw.mine=a b", "steps=1000"])[1]
    assert space_of(asked, "muon").ranges.keys() == {"lr", "adamw_factor", "mine"}
    assert space_of(asked).ranges.keys() == {"lr"}
    muon, adamw = (first(asked, arm=arm) for arm in ("muon", "adamw"))
    assert adamw.config["optimizer"]["settings"] == {"mine": "a b"}
    shown = first_command(asked, Path("study"), "cpu")
    assert shown == (
        f"run --o=muon '1.0e-03 x' 0.001 1.0 0.999 4.0 '{{literal}}' 1000 1000 50 cpu "
        f"{Path.cwd()}/study/{muon.id}/runs/0-1000/out"
    )
    assert default_folder(asked) == "compare-run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["command=p {lr} {seed} {steps} {optimizer} {foo}"], "placeholder {foo}, which nothing stands for; expected"),
        (
            ["command=p {lr} {seed} {steps} {optimizer}", "schedule=cosine"],
            "schedule=cosine has no effect: command",
        ),
        (["command=p {seed} {steps} {optimizer}"], "command has no {lr}, so every trial would be the same run"),
        (["command=p {lr} {steps} {optimizer}"], "command has no {seed}, so runs of all seeds would be the same"),
        (["command=p {lr} {seed} {optimizer}"], "command has no {steps}, so its budget would be unknown"),
        (["command=p {lr} {seed} {steps}"], "command has no {optimizer}, so muon and adamw would be the same program"),
        (["command=p {lr} {seed} {steps"], "cannot be read (expected '}' before end of string); literal braces are"),
        (["command=p '{lr} {seed}"], "cannot be read (No closing quotation)"),
        (["command=p {} {seed}"], "has a placeholder without a plain name"),
        (["command=p {lr} {seed} {steps} {optimizer}", "log=out.csv"], "log=out.csv is not in the run's own folder"),
        (["command=p {lr} {seed} {steps} {optimizer}", "log={run}/a"], "put {run} where it takes its output folder"),
        (["command=p {lr} {seed} {steps} {optimizer}", "pattern=(a"], "pattern=(a is no regular expression: missing )"),
        (["command=p {lr} {seed} {steps} {optimizer}", "pattern=a"], "pattern=a has no group loss; expected (?P<loss>"),
        (
            ["command=p {lr} {seed} {steps} {optimizer}", "timeout=-1"],
            "timeout=-1 is not valid; expected greater",
        ),
        (
            ["command=p {lr} {seed} {steps} {optimizer}", "muon.beta1=0.9"],
            "muon.beta1 has no effect: the command has no",
        ),
        (["command=p {lr} {seed} {steps} {optimizer}", "own.py:task"], "leave out task, net, data and loss"),
        (
            ["command=p {lr} {seed} {steps} {optimizer} {momentum}"],
            "adamw=adamw has no usual momentum, and the command",
        ),
        (["command=p {lr} {seed} {steps} {optimizer}", "optimizers=adamw,lion"], "lion=lion has no learning rate to"),
        (["command="], "command= has an empty value"),
        (["own.py:task"], "metric= has no effect without command="),
    ],
)
def test_words_that_cannot_be_say_what_to_do(words, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        ask([*words, "metric=loss"])


def test_a_program_that_is_not_there_is_found_before_anything_runs():
    asked = ask(["command=no-such {lr} {seed} {steps} {optimizer}", "metric=loss"])[1]
    with pytest.raises(UsageError, match="there is no program no-such; no shell reads the command"):
        check(trained=asked.trained.model_dump(mode="json"), optimizers={})


def test_what_a_log_says_of_steps():
    command = Command(command="p", metric="loss", log="{run}/log")

    def curve(rows, **fields):
        Path("log").write_text("\n".join(json.dumps(row) for row in rows))
        return log.read(Path("log"), command.model_copy(update=fields), 100).curves["validation_loss"]

    rows = [{"step": 10, "loss": 3}, {"step": 20, "loss": "nan"}, {"step": 20, "loss": 2}, {"step": 30, "loss": None}]
    assert curve(rows) == [(10, 3.0), (20, 2.0)]
    assert curve([*rows, {"step": 15, "loss": 4}]) == [(10, 3.0), (15, 4.0)]  # it went back, as a resumed run does
    assert curve([{"loss": 3}, {"loss": 2}]) == [(50, 3.0), (100, 2.0)]
    assert curve([{"step": 1, "loss": 3}, {"step": 2, "loss": 2}], step_key="none") == [(50, 3.0), (100, 2.0)]
    Path("log").write_text('{"step": 1}\n' * 9999 + '{"step": 77, "loss": 1}\n{"step": 78, "lo')
    assert log.last_step(Path("log"), command) == 77
    assert log.last_step(Path("nothing"), command) is None
    assert math.isnan(curve([{"step": 1, "loss": math.nan}])[0][1])


def test_the_example_learns_and_logs_what_its_command_reads(tmp_path):
    text = EXAMPLE.read_text()
    words = shlex.split(" ".join(text[text.rindex("muonlab compare") : text.index("It knows")].split()))[2:]
    shutil.copy(EXAMPLE, "train.py")
    asked = ask([word.replace("python ", f"{sys.executable} ") for word in [*words[:-2], "steps=41"]])[1]
    job = first(asked, arm="muon")
    (member,) = run(config=job.config, folder=f"study/{job.id}")["members"]
    assert member["validation_loss"][0] is None  # nothing is logged before step 20
    assert member["validation_loss"][-1] < member["validation_loss"][10] < math.log(10)
    assert 0 < member["validation_accuracy"][-1] < 1
