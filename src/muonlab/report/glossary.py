"""Links from the terms in a text to their definitions, which stand once on a page."""

import re
from collections.abc import Iterable

from markupsafe import Markup, escape

from muonlab.report.findings import Definitions, Findings


class Glossary:
    """The terms of a report. A heading such as "Higher, lower" defines every term that it lists."""

    def __init__(self, findings: Findings):
        found = [each for section in findings.sections for each in section.elements if isinstance(each, Definitions)]
        terms = [term for each in found for term, _ in each.terms]
        self._ids = {name.lower(): identity(term) for term in reversed(terms) for name in names(term)}
        # Letters such as n and p are terms in headings alone; longer terms come first, so that parts do not hide them.
        words = sorted((name for name in self._ids if len(name) > 1), key=len, reverse=True)
        self._pattern = _pattern(words) if words else None

    def linked(self, text: str) -> Markup:
        """Return a text in which the first mention of each term leads to its definition."""
        if self._pattern is None:
            return escape(text)
        return Markup("").join(self._parts(text, self._pattern))

    def heading(self, text: str) -> Markup:
        """Return the heading of a column, which leads to the term that it is or mentions."""
        own = self._ids.get(text.lower())
        return _link(own, text) if own else self.linked(text)

    def _parts(self, text: str, pattern: re.Pattern[str]) -> Iterable[Markup]:
        seen, end = set(), 0
        for match in pattern.finditer(text):
            own = self._ids[_singular(match[0].lower(), self._ids)]
            if own not in seen:
                seen.add(own)
                yield escape(text[end : match.start()])
                yield _link(own, match[0])
                end = match.end()
        yield escape(text[end:])


def names(term: str) -> list[str]:
    """Return the terms that a heading of the glossary defines: "Higher, lower" defines two."""
    return [name for name in re.split(r",\s*", term) if name]


def identity(term: str) -> str:
    """Return the id of a definition on the page."""
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?:s|es)?(?![\w-])", re.IGNORECASE)


def _singular(name: str, known: Iterable[str]) -> str:
    return next(each for each in (name, name.removesuffix("s"), name.removesuffix("es")) if each in known)


def _link(own: str, text: str) -> Markup:
    return Markup('<a class="term" href="#{}">{}</a>').format(own, text)
