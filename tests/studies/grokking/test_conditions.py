import synthetic_study as synthetic
from muonlab.studies.grokking.conditions import read, recorded, recorded_number


def conditions(folder, cells, fate=synthetic.usual_fate, **options):
    return read(synthetic.write(folder, cells, fate, **options))


def test_cells_that_differ_in_seeds_alone_are_one_condition(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", seeds) for seeds in (range(5), range(3, 8))]
    (condition,) = conditions(tmp_path, cells).conditions
    assert [member.seed for member in condition.members] == list(range(8))
    assert (condition.block, condition.variant, condition.num_planned) == ("add · softmax", "Muon", 8)


def test_what_varies_in_the_optimizer_names_the_variant(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", [0], optimizer__lr=lr) for lr in (0.02, 0.01)]
    runs = conditions(tmp_path, [*cells, synthetic.cell("add", "softmax", "adamw", [0])])
    assert list(runs.variants("muon")) == ["Muon lr=0.02", "Muon lr=0.01"]
    assert list(runs.variants("adamw")) == ["AdamW"]
    assert [c.series.style for c in runs.conditions] == [0, 1, 0]


def test_what_varies_outside_the_optimizer_names_the_block(tmp_path):
    cells = [synthetic.cell("add", "softmax", o, [0], net__depth=d) for d in (1, 2) for o in ("muon", "adamw")]
    runs = conditions(tmp_path, cells)
    assert runs.blocks == ("add · softmax · depth=1", "add · softmax · depth=2")
    assert runs.conditions[0].others == "depth=1"


def test_what_follows_from_the_task_is_no_factor(tmp_path):
    cells = [
        synthetic.cell("add", "softmax", "muon", [0], task__modulus=11),
        synthetic.cell("parity", "softmax", "muon", [0], task__bits=4, protocol__budget=1000),
    ]
    assert conditions(tmp_path, cells).blocks == ("add · softmax", "parity · softmax")


def test_controls_are_kept_apart(tmp_path):
    runs = conditions(tmp_path, synthetic.usual_cells(["add"]))
    assert {c.config.task.labels for c in runs.conditions} == {"true"}
    assert [c.variant for c in runs.controls] == ["Muon", "AdamW"]


def test_a_run_that_never_crosses_or_diverges_is_censored_at_the_budget(tmp_path):
    fates = {0: 500, 1: None, 2: "diverged", 3: (700, 0.4)}
    cells = [synthetic.cell("add", "softmax", "muon", fates)]
    (condition,) = conditions(tmp_path, cells, lambda _, seed: fates[seed]).conditions
    steps, crossed = condition.times()
    assert steps.tolist() == [500, synthetic.BUDGET, synthetic.BUDGET, 700]
    assert crossed.tolist() == [True, False, False, True]
    assert condition.not_before().tolist() == [450, synthetic.BUDGET, synthetic.BUDGET, 650]
    steps, sustained = condition.times(sustained=True)
    assert steps.tolist() == [500, synthetic.BUDGET, synthetic.BUDGET, synthetic.BUDGET]
    assert sustained.tolist() == [True, False, False, False]


def test_epochs_are_examples_over_train_rows(tmp_path):
    batches = (350, "full", 10**6)  # a batch is at most the train set
    cells = [synthetic.cell("add", "softmax", "muon", [0], protocol__batch=batch) for batch in batches]
    runs = conditions(tmp_path, cells)
    assert [c.epochs_per_step for c in runs.conditions] == [350 / synthetic.NUM_TRAIN, 1.0, 1.0]


def test_a_crossing_too_late_is_not_followed(tmp_path):
    fates = {0: 500, 1: (500, 0.3), 2: (1950, None), 3: None}
    (condition,) = conditions(
        tmp_path, [synthetic.cell("add", "softmax", "muon", fates)], lambda _, seed: fates[seed]
    ).conditions
    assert [member.seed for member in condition.followed] == [0, 1]


def test_what_env_json_does_not_hold_in_its_own_shape_was_not_recorded():
    environment = {"text": "x", "number": 3, "nothing": None, "endless": float("inf")}
    assert recorded(environment, "text", str) == "x"
    assert recorded(environment, "number", str) is None
    assert recorded_number(environment, "number") == 3
    assert {recorded_number(environment, key) for key in ("text", "nothing", "endless", "absent")} == {None}


def test_planned_blocks_hold_all_the_optimizers(tmp_path):
    cells = [*synthetic.usual_cells(["add"]), synthetic.cell("mul", "softmax", "muon", range(3))]
    runs = conditions(tmp_path, cells, waiting=[0])
    assert runs.planned_blocks("muon", "adamw") == {"add · softmax"}


def test_cells_without_a_result_hold_no_runs(tmp_path):
    runs = conditions(tmp_path, None, waiting=[0], failed=[1])
    assert [cell.record.status for cell in runs.cells[:3]] == ["waiting", "failed", "done"]
    assert [len(c.members) for c in runs.conditions] == [0, 0, 5, 5]
    assert runs.blocks == ("mul · softmax",)
    assert runs.find("add · softmax", "Muon") is None


def test_seconds_are_unknown_unless_every_cell_recorded_them(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", seeds) for seeds in ([0, 1], [2, 3])]
    runs = conditions(tmp_path, cells)
    assert runs.conditions[0].seconds_per_step == 0.004
    (tmp_path / cells[0].id / "env.json").write_text("{}")
    assert read(tmp_path).conditions[0].seconds_per_step is None


def test_muon_comes_first_and_adamw_second_whatever_the_plan(tmp_path):
    def labels(*optimizers):
        cells = [synthetic.cell("add", "softmax", optimizer, [0]) for optimizer in optimizers]
        return [arm.label for arm in conditions(tmp_path / "-".join(optimizers), cells).arms]

    assert labels("sgd", "adamw", "muon") == ["muon", "adamw", "sgd"]
    assert labels("sgd", "adamw") == ["sgd", "adamw"]
