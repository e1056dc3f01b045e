import synthetic_components as synthetic
from muonlab.studies.components.cautions import cautions
from muonlab.studies.components.claims import judge
from muonlab.studies.components.sensitivity import spreads


def said(runs):
    return " ".join(cautions(runs, spreads(runs, judge(runs))))


def test_a_whole_study_without_flaws_has_none(runs):
    assert cautions(runs, spreads(runs, judge(runs))) == []


def test_what_is_missing():
    runs = synthetic.runs(failed=lambda step: step.optimizer == "sgd")
    assert f"11 of {runs.expected} jobs known so far are not done, 11 of them failed" in said(runs)


def test_edges_of_the_searches():
    planted = synthetic.Planted(loss=lambda name, rate, seed: 1 / (1 + rate))
    assert "Muon on 8 of 8 problems (0 low, 8 high)" in said(synthetic.runs(planted=planted))


def test_runs_that_never_came_down():
    def censored(case, name, rate, seed, place):
        return "not reached" if name == "sgd" and seed < 2 and place == 1 else None

    runs = synthetic.runs(planted=synthetic.Planted(censored=censored))
    assert "16 of 48 of SGD" in said(runs)


def test_few_seeds_leave_the_first_optimizer_without_control():
    runs = synthetic.runs(synthetic.study(seeds=4))
    assert "No control of Muon against itself: it takes 6 seeds" in said(runs)


def test_labels_without_information_not_done():
    runs = synthetic.runs(undone=lambda step: step.case is not None and step.case.role == "control")
    assert "The control of labels without information is not done" in said(runs)


def test_cells_that_hang_on_a_rate():
    runs = synthetic.runs(planted=synthetic.Planted(loss=lambda name, rate, seed: 0.5))
    for (_, name), own in runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 0.3 if member["rate"] == 0.03 else -0.3
    assert "within 1% of the best one’s: 16 of 16 in worst-class margin" in said(runs)
