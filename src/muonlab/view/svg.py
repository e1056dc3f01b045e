"""From what matplotlib writes to SVG that takes the colours and the font of the page it stands on.

Figures are drawn in stand-in colours, one for each role, which become CSS custom properties here, so that one drawing
serves a light page, a dark page and a file of its own.
"""

import re
from xml.sax.saxutils import escape, quoteattr

# role -> (stand-in colour, what it becomes). The second value of var() serves where the page sets no colours.
# The colours are those of Okabe & Ito 2008, which all common kinds of colour blindness tell apart.
_ROLES = {
    "ink": ("#010101", "currentColor"),
    "muted": ("#020202", "var(--muted, #6b6b6b)"),
    "line": ("#030303", "var(--line, #d9d9d9)"),
    "muon": ("#040404", "var(--muon, #0072b2)"),
    "adamw": ("#050505", "var(--adamw, #d55e00)"),
    "sgd": ("#060606", "var(--sgd, #009e73)"),
    "none": ("#080808", "var(--none, #918f89)"),  # what no optimizer trained
    "other": ("#070707", "var(--other, #a85c88)"),
    "higher": ("#090909", "var(--higher, #0072b2)"),  # the two sides of a map, whoever they are
    "lower": ("#0a0a0a", "var(--lower, #d55e00)"),
}

_STANDALONE_STYLE = (
    "<style>svg{font-family:system-ui,sans-serif;color:#1a1a1a;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e8e6e1;background:#161614;--muted:#9a9a96;--line:#3a3a3a;--muon:#56b4e9;--adamw:#e69f00;"
    "--sgd:#4cc9a0;--none:#76736d;--other:#d997bd;--higher:#56b4e9;--lower:#f09a3c}}*{stroke-linejoin:round}</style>"
)


def colour(role: str) -> str:
    """Return the stand-in colour of a role; roles that are not known share one."""
    return _ROLES.get(role, _ROLES["other"])[0]


def themed(svg: str, title: str, prefix: str) -> str:
    """Return matplotlib's SVG as an element for a page: themed, rounded, with a title and with ids under a prefix."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # it would reach out into the page
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    for stand_in, property_ in _ROLES.values():
        svg = svg.replace(stand_in, property_)
    svg = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]+", _font, svg)  # matplotlib until 3.10
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)  # and since
    svg = re.sub(r"<[^>]+>", _rounded, svg)  # within tags, for text may hold numbers too
    svg = _own_ids(svg, prefix)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box, "matplotlib writes a viewBox"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img"'
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"\n\s*", "\n", body)
    return f"{head} aria-label={quoteattr(title)}>\n<title>{escape(title)}</title>{body.rstrip()}"


def standalone(themed_svg: str) -> str:
    """Return a themed SVG as a file that stands alone."""
    return '<?xml version="1.0" encoding="utf-8"?>\n' + themed_svg.replace(">", f">{_STANDALONE_STYLE}", 1) + "\n"


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {float(match[2]):g}px"


def _rounded(tag: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag[0])


def _own_ids(svg: str, prefix: str) -> str:
    """Drop the ids that nothing refers to and put the others under the prefix, for a page holds many drawings."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)([^)"]+)', lambda m: f"{m[1]}{prefix}-{m[2]}", svg)
