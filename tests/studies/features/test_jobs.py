"""Which jobs follow from which results: searches, final runs in blocks of seeds, states, transfer; and their costs."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.studies.features import jobs_of, outline, plan
from muonlab.studies.features.config import Family, GPTConfig, ImageData, Measure, OwnNet, Pretrain, Transfer
from muonlab.studies.features.jobs import (
    FINAL,
    JOB_SECONDS,
    ORDER,
    UNTRAINED,
    common_loss,
    cost,
    first_at,
    products,
    steps,
)
from muonlab.study.dotted import Dotted
from muonlab.study.study import Step

DIVERGED = [5.0, None, None, None, None]
Losses = Callable[[Step, float, int], list[float | None]]  # (step, rate, seed) -> validation loss at every evaluation


def bowl(step, rate, seed, best=0.01):
    """Losses that fall from 5 to a level which is lowest at the best rate."""
    level, last = 1 + math.log10(rate / best) ** 2 + 0.01 * seed, len(step.config.training.steps) - 1
    return [5 + (level - 5) * k / last for k in range(last + 1)]


def result(step, losses):
    """What `steps` reads of a result."""
    config = step.config
    if isinstance(config, Measure) or not config.rates:
        return {}
    at, members = config.training.steps, []
    for rate in config.rates:
        for seed in config.seeds if isinstance(config, Pretrain) else config.fine_tuned:
            seen = losses(step, rate, seed)
            diverged = next((s for s, x in zip(at, seen, strict=True) if x is None), None)
            members.append({"rate": rate, "seed": seed, "validation_loss": seen, "diverged_at": diverged})
    return {"steps": list(at), "members": members}


def drive(study, losses: Losses = bowl, roles=ORDER, results=None):
    """Do all jobs of a study, or those of some roles; return those that were done in their order, and all results."""
    done, results = [], dict(results or {})
    while now := [step for step in steps(study, results) if step.job.id not in results and step.role in roles]:
        results |= {step.job.id: result(step, losses) for step in now}
        done += now
    return done, results


def tiny(**settings):
    return plan("tiny", {"families": "cnn", "muon.rates": [0.003, 0.01, 0.03], "extensions": 2, **settings})


def of(done, role, arm=None, by=None):
    return [s for s in done if s.role == role and arm in (None, s.arm) and by in (None, s.by)]


def rates(done, role="search", arm="muon"):
    return [s.config.rates for s in of(done, role, arm)]


# -- the search ------------------------------------------------------------------------------------


def test_the_final_runs_have_the_best_rate_of_all_that_were_tried():
    done, _ = drive(tiny(), lambda step, rate, seed: bowl(step, rate, seed, best=0.09), roles=("search", "final"))
    (final,) = of(done, "final", "muon")
    assert (final.config.rates, final.config.keep, final.config.seeds) == ((0.09,), True, (0, 1))


def test_a_rate_that_diverged_is_worse_than_any_other():
    def losses(step, rate, seed):
        return DIVERGED if rate > 0.005 else [9.0, 8.0, 8.0, 8.0, 8.0 + (rate < 0.003)]

    done, _ = drive(tiny(), losses, roles=("search", "final"))
    assert rates(done) == [(0.003, 0.01, 0.03), (0.0009,)]
    assert rates(done, "final") == [(0.003,)]


@pytest.mark.parametrize(("role", "lost"), [("search", "muon"), ("final", "adamw")])
def test_where_every_run_of_an_arm_diverged_the_others_go_on(role, lost):
    def losses(step, rate, seed):
        return DIVERGED if (step.arm, step.role) == (lost, role) else bowl(step, rate, seed)

    done, _ = drive(tiny(), losses)
    left = {"muon": "adamw", "adamw": "muon"}[lost]
    (measure,) = of(done, "measure")
    assert measure.arm == left
    assert [state.name for state in measure.config.states] == [FINAL, UNTRAINED][: 1 + (left == "muon")]
    assert {s.arm for s in of(done, "transfer")} == {left, "none"}
    if role == "search":  # it goes down, and then gives no final runs
        assert rates(done) == [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]
        assert [s.arm for s in of(done, "final")] == ["adamw"]


def test_pretraining_is_judged_by_its_last_evaluation_and_fine_tuning_by_its_best():
    def dips(step, rate, seed):  # a rate that is best in between
        middle, last = (0.1, 2.0) if rate == 0.003 else (1.0, 1.0)
        return [5.0, *[middle] * (len(step.config.training.steps) - 2), last]

    done, _ = drive(tiny(extensions=0), dips)
    assert of(done, "final", "muon")[0].config.rates == (0.01,)
    assert {s.config.rates for s in of(done, "transfer") if s.config.mode == "full"} == {(0.003,)}


def test_no_choice_reads_the_test_set():
    study = tiny()
    done, results = drive(study)  # without anything of the test set, to the end
    for member in (member for each in results.values() for member in each.get("members", ())):
        member |= {"test_accuracy": -member["rate"], "test_loss": member["rate"]}
    assert {step.job.id for step in steps(study, results)} == {step.job.id for step in done}


# -- states at matched loss ------------------------------------------------------------------------

losses_of_runs = st.lists(st.lists(st.floats(0, 9), min_size=4, max_size=4), min_size=1, max_size=4)


@given(losses_of_runs, losses_of_runs)
def test_every_run_reaches_the_target_and_some_run_none_below(own, rival):
    groups = [[{"validation_loss": run} for run in group] for group in (own, rival)]
    target = common_loss(*groups)
    runs = [run for group in groups for run in group]
    assert max(min(run["validation_loss"]) for run in runs) == target
    for run in runs:
        step = first_at(run, [0, 1, 2, 3], target)
        assert run["validation_loss"][step] <= target
        assert all(loss > target for loss in run["validation_loss"][:step])
    assert common_loss(groups[0], []) is None
    assert first_at({"validation_loss": [None, 2.0, 1.0]}, [0, 10, 20], 2.0) == 10


def fixed(step, rate, seed):
    """Muon reaches 1 early, AdamW 2 at its end; AdamW's second run diverges in its final runs."""
    if step.role != "final":
        return bowl(step, rate, seed)
    if step.arm == "muon":
        return [5.0, 3.0, 1.5 + seed, 1.0 + seed / 2, 1.0]
    return DIVERGED if seed == 1 else [5.0, 4.0, 3.0, 2.5, 2.0]


def test_states_are_the_end_and_the_first_evaluation_at_the_matched_loss_and_a_diverged_run_is_left_out():
    done, _ = drive(tiny(search_seeds=2), fixed)
    own, rival = (of(done, "measure", name)[0].config for name in ("muon", "adamw"))
    at = of(done, "final")[0].config.training.steps
    assert [(s.name, s.seeds, s.steps) for s in own.states] == [
        (FINAL, (0, 1), (at[-1],) * 2),
        ("matched to adamw", (0, 1), (at[2], at[3])),
        (UNTRAINED, (0, 1), (0, 0)),
    ]
    assert [(s.name, s.seeds, s.steps) for s in rival.states] == [
        (FINAL, (0,), (at[-1],)),
        ("matched to muon", (0,), (at[-1],)),
    ]
    assert (own.control, rival.control, rival.looks) == (True, False, at)
    tuned = [s.config for s in of(done, "transfer", "adamw") if s.config.mode == "full"]
    assert [(config.seeds, config.fine_tuned) for config in tuned] == [((0, 1), (0,))] * 2  # by muon and by adamw
    assert all(s.config.seeds == (0, 1) for s in of(done, "transfer", "none"))


# -- which jobs, in which order, under which names ---------------------------------------------------


def test_others_wait_for_searches_then_final_runs_then_searches_of_transfer_then_measures():
    done, results = drive(plan("tiny"))
    ranks = [ORDER.index(step.role) for step in steps(plan("tiny"), results)]
    assert ranks == sorted(ranks)
    position = {step.job.id: number for number, step in enumerate(done)}
    assert len(position) == len(done)
    for step in done:
        if isinstance(step.config, Measure | Transfer) and step.config.weights:
            assert position[step.config.weights] < position[step.job.id]


@pytest.mark.parametrize("preset", ["tiny", "laptop"])
def test_the_outline_names_the_jobs_that_come_with_their_costs(preset):
    study = plan(preset, {"extensions": 0, "matched": "checkpoints"})
    done, _ = drive(study)
    assert sorted((step.job.name, step.job.cost) for step in done) == sorted(outline(study))


def test_jobs_of_equal_settings_have_equal_ids_and_a_family_or_rival_more_leaves_pretraining_as_it_was():
    first, again, more = ({s.job.id for s in drive(tiny(**own))[0]} for own in ({}, {}, {"families": ["vit", "cnn"]}))
    assert first == again < more
    rival, _ = drive(tiny(optimizers=["muon", "adamw", "sgd"]))
    pretraining = {step.job.id for step in drive(tiny())[0] if isinstance(step.config, Pretrain)}
    assert pretraining < {step.job.id for step in rival}


def test_one_optimizer_alone_is_trained_and_measured():
    done, _ = drive(tiny(optimizers="muon"))
    assert [state.name for state in of(done, "measure")[0].config.states] == [FINAL, UNTRAINED]


def test_jobs_follow_from_results():
    study = tiny()
    first = jobs_of(study, {})
    assert [job.name.removeprefix("cnn on digits: ") for job in first] == [
        "Muon, search",
        "AdamW, search",
        "new weights, fine-tuned on classes by Muon, search",
        "new weights, fine-tuned on classes by AdamW, search",
    ]
    _, results = drive(study, roles=("search",))
    known = jobs_of(study, {first[0].id: results[first[0].id]})
    assert "Muon, final runs" in [job for job in known if job.id != first[0].id][1].name
    assert (known[0].case, known[0].arm, known[0].role) == ("cnn on digits", "muon", "search")


# -- blocks of seeds -------------------------------------------------------------------------------


def test_more_seeds_train_only_the_new_ones():
    few, results = drive(tiny(seeds=2))
    new, everything = drive(tiny(seeds=5), results=results)
    assert [(s.arm, s.config.seeds) for s in of(new, "final")] == [("muon", (2, 3, 4)), ("adamw", (2, 3, 4))]
    assert of(new, "search") == of(new, "transfer search") == []
    assert {s.config.fine_tuned for s in of(new, "transfer") if s.config.mode == "full"} == {(2, 3, 4)}
    assert of(new, "final")[0].job.name == "cnn on digits: Muon, final runs, seeds 2 to 4"
    third, _ = drive(tiny(seeds=6), results=everything)
    assert {s.config.seeds for s in of(third, "final")} == {(5,)}
    assert drive(tiny(seeds=5), results=everything)[0] == []
    assert {step.job.id for step in few} >= {s.job.id for s in steps(tiny(seeds=2), everything)}


def test_blocks_are_measured_one_by_one_at_the_loss_that_all_runs_reached():
    _, results = drive(tiny(seeds=1), fixed)
    done, everything = drive(tiny(seeds=3), fixed, results=results)
    blocks = of(steps(tiny(seeds=3), everything), "measure", "muon")
    at = blocks[0].config.looks
    assert [(b.config.seeds, b.config.control) for b in blocks] == [((0,), True), ((1, 2), False)]
    assert [b.config.states[1].steps for b in blocks] == [(at[2],), (at[3], at[3])]
    assert [b.config.states[2].seeds for b in blocks] == [(0,), (1, 2)]  # untrained
    assert of(done, "measure", "muon")[0].config.weights == blocks[-1].config.weights


def test_a_search_of_fine_tuning_starts_from_the_block_with_runs_enough():
    _, results = drive(tiny(seeds=1, search_seeds=2))
    done, _ = drive(tiny(seeds=3, search_seeds=2), results=results)
    tried = of(done, "transfer search", "muon")
    assert {s.config.fine_tuned for s in tried} == {(1, 2)}


# -- costs -----------------------------------------------------------------------------------------

LAPTOP = {s.case.family.net.kind: s.case.family for s in steps(plan("laptop"), {})}
LAPTOP["own"] = Family(net=OwnNet(call=Dotted(name="a:b")), data=LAPTOP["cnn"].data)
MEASURES, TRAINED = (of(drive(plan("laptop", {"extensions": 0}))[0], role)[0].config for role in ("measure", "final"))


def changed(config, path, value):
    """Return a config with another value at a path such as training.budget."""
    head, _, rest = path.partition(".")
    return config.model_copy(update={head: changed(getattr(config, head), rest, value) if rest else value})


@pytest.mark.parametrize("family", LAPTOP.values(), ids=LAPTOP)
def test_training_costs_in_proportion_to_steps_and_members_and_more_for_a_larger_batch(family):
    base = changed(TRAINED, "family", family)
    own = cost(base) - JOB_SECONDS  # without what every job takes
    assert own > 0
    assert cost(changed(base, "training.budget", 3 * base.training.budget)) - JOB_SECONDS == pytest.approx(3 * own)
    assert cost(changed(base, "seeds", base.seeds * 3)) - JOB_SECONDS == pytest.approx(3 * own)
    assert cost(changed(base, "training.batch", base.training.batch + 1)) > cost(base)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("states", MEASURES.states * 2), ("seeds", MEASURES.seeds * 2), ("looks", MEASURES.looks * 2)),
        *(("measuring.examples", 200), ("measuring.path_examples", 200)),
    ],
)
def test_measures_cost_more_for_more_states_seeds_looks_and_examples(path, value):
    assert cost(changed(MEASURES, path, value)) > cost(MEASURES)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *(("cnn", "width", 32), ("cnn", "depths", (1, 1, 1, 1)), ("cnn", "depths", (2, 1, 1))),
        *(("vit", "width", 96), ("vit", "depth", 4), ("vit", "patch", 1), ("gpt", "width", 128), ("gpt", "depth", 3)),
    ],
)
def test_a_larger_net_and_larger_images_cost_more(kind, field, value):
    family = LAPTOP[kind]
    assert products(changed(family, f"net.{field}", value)) > products(family)
    if kind != "gpt":
        assert products(Family(net=family.net, data=ImageData(name="x", source="x", size=10))) > products(family)


def test_products_are_those_of_the_matrices():
    """By hand: one stage of one block has two 3 x 3 convolutions; a decoder has its matrices and attention."""
    cnn = changed(changed(LAPTOP["cnn"], "net.width", 8), "net.depths", (1,))
    assert products(cnn) == 64 * 9 * 2 * 8**2
    net = GPTConfig(depth=1, width=16, heads=2, feed_forward="gelu")
    gpt = Family(net=net, data=changed(LAPTOP["gpt"].data, "length", 10))
    assert products(gpt) == 10 * (12 * 16**2 + 2 * 10 * 16 + 257 * 16)
