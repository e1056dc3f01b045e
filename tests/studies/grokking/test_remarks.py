import synthetic_study as synthetic
from muonlab.studies.grokking.analysis import find
from muonlab.studies.grokking.comparison import pairs_of
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.remarks import cautions, remarks
from muonlab.studies.grokking.verdict import machine, scope_of


def said(folder, fate=synthetic.usual_fate, cells=None, **options):
    """What is remarked on Muon against AdamW, and what weakens it."""
    runs = read(synthetic.write(folder, cells, fate, **options))
    (pair,) = pairs_of(runs)
    return remarks(pair), cautions(find(runs), pair)


def test_nothing_weakens_a_plain_case(tmp_path):
    assert said(tmp_path)[1] == []


def test_whether_it_stays_is_said(tmp_path):
    def fate(config, seed):
        step = synthetic.usual_fate(config, seed)
        return (step, 0.61) if step and config.optimizer.name == "muon" and seed == 0 else step

    text = " ".join(said(tmp_path, fate)[0])
    assert "8 of 10 Muon runs (80%, interval 49% to 94%) and 10 of 10 AdamW runs" in text
    assert "0.610 with Muon" in text
    assert "Counting only crossings that last, the ratio is" in text


def test_an_answer_that_rests_on_crossings_that_do_not_last_is_a_caution(tmp_path):
    def fate(config, seed):
        step = synthetic.usual_fate(config, seed)
        return (step, 0.61) if step and config.optimizer.name == "muon" else step

    assert any("known to last the answer would not stand" in caution for caution in said(tmp_path, fate)[1])


def test_runs_that_crossed_too_late_to_be_followed_are_left_out_of_the_share_that_stayed(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "muon" and seed < 2:
            return (1950, None) if seed else (1000, 0.61)
        return synthetic.usual_fate(config, seed)

    text = " ".join(said(tmp_path, fate, synthetic.usual_cells(["add"]))[0])
    assert "Of the runs that crossed (1 that crossed too late to be followed are left out), 3 of 4 Muon runs" in text


def test_blocks_that_are_missing_and_a_missing_control_are_said(tmp_path):
    cells = synthetic.usual_cells(["add", "mul", "sub"])[:-2]
    found = said(tmp_path, cells=cells, failed=[4])[1]
    assert any("2 of the 3 blocks" in caution for caution in found)
    assert any("No control" in caution for caution in found)


def test_unequal_tuning_is_said_and_every_pair_counted(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(5), optimizer__lr=r) for r in (0.01, 0.02)]
    cells.append(synthetic.cell("add", "softmax", "adamw", range(5)))
    more, found = said(tmp_path, cells=cells)
    assert any("equally many settings" in caution for caution in found)
    assert any(text.startswith("Of the 2 pairs of settings") for text in more)


def close(config, seed):
    """About .84 in steps; a step of Muon costs 1.3 times as many FLOPs and 4 / 3 times as many seconds."""
    if config.task.labels == "random":
        return None
    return 50 * (seed % 2) + {"muon": 1250, "adamw": 1500}[config.optimizer.name]


def test_an_answer_that_turns_round_in_flops_is_a_caution_and_seconds_alone_are_none(tmp_path):
    more, found = said(tmp_path, close)
    assert [caution.partition(" the answer turns round")[0] for caution in found] == [
        "Counted in FLOPs of matrix products"
    ]
    (cost,) = [text for text in more if text.startswith("A step")]
    assert "in FLOPs of matrix products (later)" in cost
    assert "and 1.11 in seconds on this machine (without an interval" in cost


def test_the_budget_flatters_a_sooner_optimizer_with_more_runs_that_never_cross(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "muon" and seed == 0 and config.task.name == "add":
            return None
        return synthetic.usual_fate(config, seed)

    more, found = said(tmp_path, fate, synthetic.usual_cells(num_seeds=10))
    assert any("the ratio depends on the budget" in text for text in more)
    (caution,) = found
    assert "1 of 20 Muon runs and 0 of 20 AdamW runs did not cross" in caution
    # 10 times the budget: (20,000 + 9 runs of about 540) / (10 of about 900) = 2.8 on add, about .6 on mul
    assert "the ratio would be 1.2" in caution
    assert "whose interval contains 1: the answer would not stand." in caution
    assert "Within the one block where every run crossed, it is 0.6" in caution


def test_the_budget_does_not_flatter_where_only_the_later_optimizer_has_such_runs(tmp_path):
    def fate(config, seed):
        return None if config.optimizer.name == "adamw" and seed == 0 else synthetic.usual_fate(config, seed)

    assert said(tmp_path, fate)[1] == []


def test_tasks_and_losses_are_told_apart(tmp_path):
    more, _ = said(tmp_path, cells=synthetic.usual_cells(losses=["softmax", "stablemax"]))
    assert any(text.startswith("By task, Muon is sooner on add 0.") for text in more)
    assert any(text.startswith("By loss, Muon is sooner with softmax 0.") for text in more)


def test_controls_that_cannot_tell_rule_nothing_out(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_VALIDATION", 1)
    (caution,) = said(tmp_path)[1]
    assert caution.startswith("The controls have too few validation rows to tell")


def test_the_scope_names_what_was_compared_and_no_more(tmp_path):
    cells = [synthetic.cell(t, "softmax", o, range(3)) for t in ("add", "parity") for o in ("muon", "adamw")]
    cells.append(synthetic.cell("mul", "sparsemax", "muon", range(3)))
    runs = read(synthetic.write(tmp_path, cells))
    scope = dict(scope_of(runs, pairs_of(runs)[0]))
    assert scope["Tasks"] == "add (mod 97, 75% train) and parity (10 bits, 75% train)"
    assert scope["Output distribution"] == "softmax"
    assert scope["Horizon"] == "2,000 steps, evaluated every 50 steps"
    assert scope["Machine"] == "Imaginary CPU @ 2.00GHz, 2 cores, 7.7 GB, 1 thread per worker, device cpu"


def test_a_batch_is_no_larger_than_the_train_set(tmp_path):
    for batch, said in ((10**6, "7,000"), ("full", "full (7,000 rows)"), (512, "512")):
        cells = [synthetic.cell("add", "softmax", "muon", [0], protocol__batch=batch)]
        assert dict(scope_of(read(synthetic.write(tmp_path / str(batch), cells)), None))["Batch"] == said


def test_a_gpu_is_named(tmp_path):
    runs = read(synthetic.write(tmp_path, [synthetic.cell("add", "softmax", "muon", [0])]))
    text = '{"hardware": {"cpu": "One", "gpu": "Imaginary GPU"}, "device": "cuda", "seeds": [0]}'
    (tmp_path / runs.cells[0].record.id / "env.json").write_text(text)
    assert machine(read(tmp_path)) == "One, Imaginary GPU, device cuda"


def test_several_machines_are_all_named(tmp_path):
    runs = read(synthetic.write(tmp_path))
    (tmp_path / runs.cells[0].record.id / "env.json").write_text('{"hardware": {"cpu": "Another"}, "device": "cuda"}')
    assert machine(read(tmp_path)).startswith("Another, device cuda; and Imaginary CPU")
