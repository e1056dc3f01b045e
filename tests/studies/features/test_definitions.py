from muonlab.studies.features.definitions import definitions


def test_every_term_has_a_meaning(runs):
    terms = dict(definitions(runs).terms)
    assert all(terms.values())
    assert {
        "Equal budget",
        "Matched loss",
        "n",
        "Interval",
        "p",
        "Holm",
        "Corruption",
        "Severity",
        "Effective robustness",
        "Linear probe",
        "Margin",
        "Effective rank",
        "Transfer",
    } <= terms.keys()
    assert "there are 5," in terms["Look"]
    assert "{" not in "".join(terms.values())
