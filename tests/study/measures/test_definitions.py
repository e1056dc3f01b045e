from muonlab.study.measures.definitions import terms


def test_terms_of_a_study_and_shared_ones_in_the_order_asked_for():
    found = terms("Own: at most {alpha:g}.\n\nOther: of\nthe study.", ("Severity", "Other", "Own"))
    assert [term for term, _ in found] == ["Severity", "Other", "Own"]
    assert found[1:] == [("Other", "of the study."), ("Own", "at most 0.05.")]
    assert found[0][1].startswith("Its degree, 1 to 5.")
