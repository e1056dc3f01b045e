"""Drawings of matplotlib as SVG elements that take their colours and font from the page they stand on.

matplotlib writes colours as numbers. So a figure is drawn in stand-ins, one number per role, which become CSS custom
properties here: one drawing serves a light page, a dark page and a file of its own.
"""

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from xml.sax.saxutils import escape, quoteattr

# Role -> its colour on light and on dark paper, those of Okabe & Ito 2008, which all common kinds of colour blindness
# tell apart; darker or lighter where text needs the contrast.
ROLES = {
    "ink": ("#1c1b19", "#e9e6df"),
    "muted": ("#66635d", "#a19d94"),
    "line": ("#dcd8d0", "#3a3936"),
    "muon": ("#0072b2", "#56b4e9"),
    "adamw": ("#c75300", "#f09a3c"),
    "sgd": ("#00805c", "#4cc9a0"),
    "none": ("#918f89", "#76736d"),  # what no optimizer trained
    "other": ("#a85c88", "#d997bd"),
    "higher": ("#0072b2", "#56b4e9"),  # the two sides of a map, whoever they are
    "lower": ("#d55e00", "#f09a3c"),
}
PAPER = "#fdfcfa", "#161615"
_COLOURS = ROLES | {"paper": PAPER}  # the inside of what is hollow
STAND_INS = {role: f"#0000{number:02x}" for number, role in enumerate(_COLOURS, start=1)}

_HEX = re.compile("#[0-9a-f]{6}")
_OWN = re.compile(r"var\(--own-([0-9a-f]{6}),")
_FONT = "font-family:system-ui,sans-serif"


_IS_PICTURE = ContextVar("_IS_PICTURE", default=False)


@contextlib.contextmanager
def on_light_paper() -> Iterator[None]:
    """Make `colour` return the colours of light paper themselves: a picture has no style sheet."""
    token = _IS_PICTURE.set(True)
    try:
        yield
    finally:
        _IS_PICTURE.reset(token)


def colour(role: str) -> str:
    """Return the stand-in of a role; "#rrggbb" itself, which is a colour that a user gave; other roles share one."""
    if _HEX.fullmatch(role) and role not in STAND_INS.values():
        return role
    known = role if role in ROLES else "other"
    return ROLES[known][0] if _IS_PICTURE.get() else STAND_INS[known]


def palette(svg: str) -> str:
    """Return the CSS of every colour of a drawing on light and on dark paper.

    Colours that a user gave are mixed with ink, which is dark on light paper and light on dark: a pale yellow can be
    read on white, a navy blue on black.
    """
    light, dark = (";".join(f"--{role}:{colours[side]}" for role, colours in _COLOURS.items()) for side in (0, 1))
    own = ";".join(f"--own-{x}:color-mix(in oklab,#{x} 50%,var(--ink))" for x in sorted(set(_OWN.findall(svg))))
    return f":root,svg{{{light};{own}}}@media(prefers-color-scheme:dark){{:root,svg{{{dark}}}}}"


def themed(svg: str, title: str) -> str:
    """Return what matplotlib wrote as an element for a page: in the page's colours and font, and with a title."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)  # it would reach out into the page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every drawing; ids that something refers to are hashes
    svg = re.sub(r"(stroke|fill): (#[0-9a-f]{6})", _themed_colour, svg)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)
    svg = re.sub(r"<[^>]+>", _rounded, svg)  # within tags, for text may hold numbers too
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box, "matplotlib writes a viewBox"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img"'
    body = svg[svg.index("<svg") :].partition(">")[2]
    body = re.sub(r"\n\s*", "\n", body).rstrip()
    return f"{head} aria-label={quoteattr(title)}>\n<title>{escape(title)}</title>{body}"


def standalone(svg: str) -> str:
    """Return a themed SVG as a file that stands alone."""
    ground = f"color:var(--ink);background:var(--paper);{_FONT}"
    style = f"<style>{palette(svg)}svg{{{ground}}}*{{stroke-linejoin:round}}</style>"
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace(">", f">{style}", 1) + "\n"


_THEMED = {STAND_INS[role]: f"var(--{role}, {light})" for role, (light, _) in _COLOURS.items()}
_THEMED[STAND_INS["ink"]] = "currentColor"


def _themed_colour(match: re.Match[str]) -> str:
    what, color = match.groups()
    return f"{what}: {_THEMED.get(color, f'var(--own-{color[1:]}, {color})')}"


def _rounded(tag: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag[0])
