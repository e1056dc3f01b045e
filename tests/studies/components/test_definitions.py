from muonlab.studies.components.definitions import definitions


def test_every_term_has_a_meaning_with_the_numbers_of_the_study(runs):
    terms = dict(definitions(runs).terms)
    assert all(terms.values())
    assert "0.5, the one" in terms["Main eps"]
    assert "at least 3 pairs" in terms["Higher, lower"]
    assert "1% of the larger mean" in terms["Higher, lower"]
    assert not any("{" in meaning for meaning in terms.values())
