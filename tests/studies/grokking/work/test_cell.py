"""One cell: its curves, its result, its optimizers against torch's, and the same bytes however often it is killed."""

import random
import signal
import time

import pytest
import torch

import killed
from matrices import draw
from muonlab.data import algorithmic
from muonlab.data.algorithmic import TRAIN_SHARES
from muonlab.jobs.files import read_json, read_lines
from muonlab.losses import softmax
from muonlab.measure import crossing
from muonlab.rules import muon
from muonlab.rules.polar import orthogonalize
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking.work import material
from muonlab.studies.grokking.work.cell import build_population, build_rows, run
from muonlab.studies.grokking.work.material import treatments
from muonlab.studies.grokking.work.rows import Rows

# A cell that groks in about a second: its seeds cross at different times, so the stack shrinks on the way.
GROKS = {
    "task": {"modulus": 23, "train_share": 0.8},
    "net": {"depth": 1, "width": 32, "ff_width": 64, "dropout": 0.1},
    "protocol": {"batch": 128, "budget": 200, "cadence": 10, "threshold": 0.6, "follow": 2, "dtype": "float32"},
    "seeds": (0, 1, 2, 3),
}


def test_the_result_says_what_the_curves_show_and_members_leave_when_they_are_decided(make_cell, tmp_path):
    seen = []
    result = run(make_cell(**GROKS), tmp_path, report=seen.append)
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(0, rows[-1]["step"] + 1, 10))
    assert [event["step"] for event in seen] == [row["step"] for row in rows]
    assert (result.num_train, result.num_validation) == (423, 106)
    for number, member in enumerate(result.members):
        curves = [[row[key][number] for row in rows] for key in ("train_accuracy", "validation_accuracy")]
        alive = sum(value is not None for value in curves[0])
        times = crossing.times(curves[0][:alive], curves[1][:alive], crossing.Criterion(0.6, 0.99, 2))
        first = member.first_crossing
        assert (first.step, first.after_step) == (10 * times.first, 10 * (times.first - 1))
        assert first.epoch == pytest.approx(first.step * 128 / 423)
        assert first.flops == first.step * result.flops_per_step
        assert member.minimum_after_crossing == times.minimum_after
        assert member.last_step == 10 * (alive - 1) == member.sustained_crossing.step + 2 * 10
    assert len({member.last_step for member in result.members}) > 1


def test_flops_are_those_of_the_matrix_products(make_cell, tmp_path):
    # One layer, no gate, plain SGD: every product is forward, and backward once for its input and once for its weight.
    net = {"depth": 1, "width": 16, "heads": 2, "ff_width": 16, "gated": False, "causal": False}
    result = run(make_cell(net=net, optimizer="sgd", protocol={"budget": 5}), tmp_path)
    B, T, D, C = 8, 4, 16, 7
    projections, feed_forward = 4 * B * T * D * D, 2 * B * T * D * 16
    attention, head = 2 * B * T * T * D, B * D * C
    # The head is applied to the last position, all else to every one.
    assert result.flops_per_step == 2 * 3 * (projections + attention + feed_forward + head)


def test_how_a_cell_trains_is_recorded_and_compiling_changes_its_numbers_by_rounding(
    make_cell, tmp_path, compiled_programs
):
    config = make_cell(net={"dropout": 0.2}, seeds=(3, 4))
    eager, other = run(config, tmp_path / "a", compile="never"), run(config, tmp_path / "b", compile="always")
    sessions = [read_json(tmp_path / each / "env.json")["sessions"][0] for each in "ab"]
    assert [(each["is_compiled"], each["height"]) for each in sessions] == [(False, 2), (True, 1)]
    assert "compiled program" in (tmp_path / "b" / "log.txt").read_text()
    rows = [read_lines(tmp_path / each / "metrics.jsonl") for each in "ab"]
    for first, second in zip(*rows, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-9)
    assert eager.flops_per_step == other.flops_per_step
    programs = set(compiled_programs.glob("*.pt2"))
    run(make_cell(net={"dropout": 0.2}, seeds=(3, 4), optimizer="adamw"), tmp_path / "c", compile="always")
    assert set(compiled_programs.glob("*.pt2")) == programs  # the optimizers share one


@pytest.mark.parametrize("task", ["add", "gcd", "parity"])
def test_random_labels_stay_at_chance(make_cell, tmp_path, task):
    config = make_cell(
        task={"name": task, "modulus": 13, "bits": 7, "train_share": TRAIN_SHARES[task], "labels": "random"},
        net={"depth": 1, "width": 32, "ff_width": 64, "dropout": 0},
        protocol={"batch": 64, "budget": 200, "cadence": 100, "dtype": "float32"},
        seeds=(0, 1),
    )
    result = run(config, tmp_path)
    limit = chance_limit(result.chance, result.num_validation, num_looks=2 * result.num_evaluations)
    for member in result.members:
        assert member.first_crossing is None
        assert member.best_validation_accuracy < limit
    assert limit < max(member.last_train_accuracy for member in result.members)  # which learnt its rows by heart


def test_a_member_that_diverges_is_a_result(make_cell, tmp_path):
    result = run(make_cell(optimizer="sgd", hyper={"lr": 1e30}, protocol={"dtype": "float32"}), tmp_path)
    for member in result.members:
        assert (member.diverged_at, member.first_crossing_reason) == (5, "diverged before crossing")
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["train_loss"] == [None] * 3


NUM_KILLS = 10


def test_killed_at_random_moments_it_ends_with_the_same_bytes(make_cell, tmp_path):
    longer = {"cadence": 4, "budget": 400, "threshold": 0.85, "follow": 3}
    config = make_cell(**GROKS | {"protocol": GROKS["protocol"] | longer}).model_dump_json()
    rng, folder = random.Random(0), tmp_path
    for kills in (0, NUM_KILLS):
        folder = tmp_path / f"{kills} kills"
        for _ in range(kills):
            process, events = killed.started(config, folder)
            for _ in range(rng.randint(4, 7)):  # it has said where it starts, and has come three to six evaluations on
                events.recv()
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        process, _ = killed.started(config, folder)
        process.join()
        assert process.exitcode == 0
    for name in ("metrics.jsonl", "result.json"):
        assert (folder / name).read_bytes() == (tmp_path / "0 kills" / name).read_bytes()
    lines = [line.split(" ", 1)[1] for line in (folder / "log.txt").read_text().splitlines()[:-1]]
    starts = [line for line in lines if not line.startswith("trains with")]
    assert starts[0] == "starts with 4 members"
    assert len(starts) == NUM_KILLS + 1
    assert all(start.startswith("goes on from step") for start in starts[1:])
    assert not starts[-1].endswith("4 members"), "some kill should have come after a member had left"


# -- optimizers against torch's ----------------------------------------------------------------------

ADAMW = {"betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 1.0}
SGD = {"momentum": 0.9, "weight_decay": 1e-4}


def by_role(net):
    """Return the parameters of a net as a user would part them by hand."""
    named = dict(net.named_parameters())
    head = [named.pop("head.weight")]
    embedding = [named.pop(name) for name in list(named) if "embedding" in name]
    vectors, hidden = ([p for p in named.values() if (p.ndim < 2) == is_vector] for is_vector in (True, False))
    assert all((embedding, vectors, hidden))
    return head, embedding, vectors, hidden


def adamw_by_role(net):
    head, embedding, vectors, hidden = by_role(net)
    groups = [{"params": [*vectors, *hidden], "lr": 0.01}, {"params": head, "lr": 0.03}]
    return [torch.optim.AdamW([*groups, {"params": embedding, "lr": 0.001}], **ADAMW)]


def sgd_and_adamw(net):
    head, embedding, vectors, hidden = by_role(net)
    return [
        torch.optim.SGD(hidden, lr=0.05, **SGD),
        torch.optim.AdamW([*head, *embedding, *vectors], lr=0.002, **ADAMW),
    ]


@pytest.mark.parametrize(
    ("optimizer", "hyper", "by_hand"),
    [
        ("adamw", {"lr": 0.01, "head_lr": 0.03, "embedding_lr": 0.001}, adamw_by_role),
        ("sgd", {"lr": 0.05, "takes": "hidden", "adamw_lr": 0.002}, sgd_and_adamw),
        ("sgd", {"lr": 0.05}, lambda net: [torch.optim.SGD(net.parameters(), lr=0.05, **SGD)]),
    ],
)
@pytest.mark.parametrize("warmup", [0, 7])
def test_a_cell_is_a_loop_with_torch_optim_parameter_groups_and_a_scheduler(
    make_cell, tmp_path, optimizer, hyper, by_hand, warmup
):
    net = {"depth": 1, "dropout": 0, "bias": True, "positions": "learned", "norm": "layer"}
    protocol = {"warmup": warmup, "budget": 20, "cadence": 5}
    config = make_cell(net=net, optimizer=optimizer, hyper=hyper, protocol=protocol, seeds=(3, 4))
    run(config, tmp_path)
    task = material.build_task(config)
    rows, start = build_rows(config, task, config.seeds, "cpu"), build_population(config, task, config.seeds, "cpu")
    plain = material.build_net(config, task).double()
    plain.load_state_dict({name: p[1] for name, p in start.parameters.items()})
    optimizers = by_hand(plain)
    ramp = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1, (step + 1) / max(warmup, 1))) for o in optimizers]
    expected = []
    for step in range(21):
        if step % 5 == 0:
            own = rows.train[1]
            expected.append(softmax(plain(rows.inputs[own]), rows.labels[1][own]).mean().item())
        inputs, labels = (part[1] for part in rows(step))
        plain.zero_grad()
        softmax(plain(inputs), labels).mean().backward()
        for each in (*optimizers, *ramp):
            each.step()
    found = [row["train_loss"][1] for row in read_lines(tmp_path / "metrics.jsonl")]
    assert found == pytest.approx(expected, rel=1e-8)


def of_query(config):
    net = material.build_net(config, material.build_task(config))
    return treatments(net, config)["blocks.0.attention.query.weight"]


def test_muon_has_the_scale_and_dtype_that_are_asked_for_and_adamw_a_rate_of_its_own(make_cell):
    plain = of_query(make_cell()).hyper
    assert (plain["adjust_lr_fn"], plain["polar_dtype"]) == ("original", None)
    other = make_cell(hyper={"lr": 0.03, "scale": False, "polar_dtype": "bfloat16", "adamw_lr": 0.002})
    hyper = of_query(other).hyper
    assert (hyper["lr"], hyper["adjust_lr_fn"], hyper["polar_dtype"]) == (0.03, "none", torch.bfloat16)
    net = material.build_net(other, material.build_task(other))
    own = {"lr": 0.002, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
    assert treatments(net, other)["head.weight"].hyper == own


def test_muon_iterates_as_the_study_did_whatever_other_methods_there_are(make_cell):
    p = draw(3, 8, 16, dtype=torch.float32)
    treatment = of_query(make_cell(hyper={"lr": 1.0, "weight_decay": 0.0, "scale": False}))
    new_p, _ = muon.update(p, muon.init(p), torch.zeros_like(p), **treatment.hyper)
    expected = -orthogonalize((0.95 * 0.05 + 0.05) * p, "quintic", steps=5)
    torch.testing.assert_close(new_p, expected, rtol=0, atol=1e-5)


# -- rows --------------------------------------------------------------------------------------------

TASK = algorithmic.build("add", modulus=7)  # 49 rows, 34 of them to train on


def rows_of(seeds=(0, 1, 2), batch=8, **changes) -> Rows:
    return Rows(TASK, seeds, train_share=0.7, batch=batch, **changes)


def test_an_epoch_visits_a_train_row_at_most_once_and_no_other_with_its_label():
    rows = rows_of()
    for member in range(3):
        assert torch.equal(torch.cat([rows.train[member], rows.validation[member]]).sort().values, torch.arange(49))
        inputs, labels = (torch.cat(each) for each in zip(*(_of(rows, step, member) for step in range(4)), strict=True))
        codes = (inputs[:, 0] * 7 + inputs[:, 2]).tolist()
        assert len(set(codes)) == len(codes) == 32
        assert set(codes) <= set(rows.train[member].tolist())
        assert torch.equal(labels, (inputs[:, 0] + inputs[:, 2]) % 7)


def _of(rows, step, member):
    inputs, labels = rows(step)
    return inputs[member], labels[member]


def test_a_member_sees_what_it_sees_alone_after_any_drop():
    together, alone = rows_of((5, 6, 7)), rows_of((6,))
    together(3)
    together.keep([1])
    for step in (3, 4, 11):
        for of_stack, of_one in zip(together(step), alone(step), strict=True):
            assert torch.equal(of_stack, of_one)


def test_random_labels_are_a_permutation_of_the_true_ones_and_differ_by_member():
    rows = rows_of(random_labels=True)
    for labels in rows.labels:
        assert torch.equal(labels.bincount(), TASK.labels.bincount())
    assert not torch.equal(rows.labels[0], rows.labels[1])
    assert (rows.labels[0] == TASK.labels).double().mean() < 0.5


@pytest.mark.parametrize(("batch", "epochs"), [("full", 17), (1000, 17), (8, 17 * 8 / 34)])
def test_an_epoch_is_as_many_examples_as_there_are_train_rows(batch, epochs):
    assert rows_of(batch=batch).epoch(17) == epochs


def test_the_short_last_batch_of_an_epoch_is_kept_or_dropped():
    dropped, kept = (rows_of((0,), batch=10, short_batch=short) for short in (False, True))
    assert [len(kept(step)[1][0]) for step in range(5)] == [10, 10, 10, 4, 10]
    assert [len(dropped(step)[1][0]) for step in range(4)] == [10, 10, 10, 10]
    assert kept.epoch(4) == 1
    epoch = torch.cat([kept(step)[0][0] for step in range(4)])
    assert {tuple(row) for row in epoch.tolist()} == {tuple(row) for row in TASK.inputs[kept.train[0]].tolist()}
