import synthetic_study as synthetic
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.definitions import definitions


def test_every_metric_is_defined_with_the_studys_own_settings(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", [0], protocol__follow=8, protocol__threshold=0.9)]
    terms = dict(definitions(read(synthetic.write(tmp_path, cells))).terms)
    assert "at least 0.9, train accuracy having been at least 0.99" in terms["First crossing"]
    assert "for 8 more evaluations" in terms["Sustained crossing"]
    assert "50 steps apart" in terms["Interval width"]
    assert "budget of 2000 steps" in terms["Censored"]
    metrics = "Median time,Mean steps,Ratio of mean steps,Log-rank p,Permutation p,Welch’s t,Mann–Whitney,Holm"
    assert {*metrics.split(","), "FLOPs of matrix products", "Seed"} <= set(terms)
    assert "towards 1" not in " ".join(terms.values())  # censoring may flatter the sooner one too
    assert "where the sooner one has more of them, it flatters the sooner one" in terms["The ratio and the budget"]
    assert "start from the same weights and the same split" in terms["Seed"]
    assert not any("{" in meaning for meaning in terms.values())
