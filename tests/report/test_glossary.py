"""Links from terms to their definitions."""

import re

import pytest

from muonlab.report.findings import Definitions, Findings, Section, Verdict
from muonlab.report.glossary import Glossary, identity

TERMS = (("Higher, lower", "..."), ("Margin", "..."), ("Linear probe", "..."), ("p, Holm", "..."), ("n", "..."))
VERDICT = Verdict("inconclusive", "Inconclusive", "No.", None, (), (), ())


def glossary(terms=TERMS):
    return Glossary(Findings("t", "q?", VERDICT, (), (Section("Words", (Definitions(terms),)),)))


def links(markup):
    return re.findall(r'<a class="term" href="#([^"]+)">([^<]+)</a>', str(markup))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The margin of a linear probe is higher.", ["margin", "linear probe", "higher"]),
        ("Margins, and again a margin", ["Margins"]),  # the first mention in a text
        ("higher or lower", ["higher"]),  # of one entry
        ("Holm’s p", ["Holm"]),  # no letter in running text
        ("marginal, un-higher, 3 < 4", []),
    ],
)
def test_the_first_mention_of_each_term_leads_to_its_definition(text, found):
    marked = glossary().linked(text)
    assert [words for _, words in links(marked)] == found
    assert re.sub("<[^>]+>", "", str(marked)) == text.replace("<", "&lt;")


def test_headings_lead_to_terms_of_one_letter_too():
    assert links(glossary().heading("n")) == [("term-n", "n")]
    assert links(glossary().heading("p, Holm")) == [("term-p-holm", "Holm")]
    assert links(glossary().heading("Seconds")) == []


def test_every_link_leads_to_an_id_of_a_definition():
    ids = {identity(term) for term, _ in TERMS}
    assert {own for own, _ in links(glossary().linked("Margin, linear probes, lower, Holm"))} <= ids


def test_a_report_without_definitions_has_no_links():
    assert str(glossary(()).linked("a <b> margin")) == "a &lt;b&gt; margin"
