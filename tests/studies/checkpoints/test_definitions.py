from muonlab.studies.checkpoints.definitions import definitions


def test_every_term_has_a_meaning():
    terms = dict(definitions().terms)
    assert all(terms.values())
    assert {"Group", "One checkpoint a side", "Several checkpoints", "Margin", "Effective rank"} <= terms.keys()
    assert "{" not in "".join(terms.values())
