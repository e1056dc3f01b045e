from pathlib import Path

from muonlab.jobs.job import JobRecord
from muonlab.study.words import definitions, missing_jobs, on_edges, uncontrolled


def test_a_study_without_flaws_has_no_caution():
    assert missing_jobs([], 0) == on_edges([]) == uncontrolled([]) == []


def test_what_weakens_an_answer():
    failed = JobRecord("1", "job", {}, Path("x"), "failed", "torn", None, {})
    assert missing_jobs([failed], 3) == ["3 of 3 jobs known so far are not done, 1 of them failed: numbers may change."]
    assert missing_jobs([failed], 1)[0].startswith("1 of 1 jobs known so far is not done")
    assert on_edges(["Muon (low)", "SGD (high)"])[0].endswith("may lie beyond: Muon (low); SGD (high).")
    assert uncontrolled(["cnn", "vit"])[0].startswith("No control is measured yet of cnn, vit:")


def test_terms_of_a_study_and_shared_ones_in_the_order_asked_for():
    own = "Own: at most {alpha:g} and {mine}.\n\nOther: of\nthe study.\n\nEdge: another one."
    found = definitions(own, ("Holm", "Other", "Own", "Edge"), {"mine": 3}).terms
    assert found[1:] == (("Other", "of the study."), ("Own", "at most 0.05 and 3."), ("Edge", "another one."))
    assert found[0][1].startswith("p adjusted over all comparisons")
    assert [term for term, _ in definitions(own, values={"mine": 3}).terms] == ["Own", "Other", "Edge"]
