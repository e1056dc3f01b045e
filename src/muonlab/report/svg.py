"""From what matplotlib writes to SVG that takes the colours and the font of the page it stands on.

Figures are drawn in stand-in colours, one for each role, which become CSS custom properties here, so that one drawing
serves a light page, a dark page and a file of its own.
"""

import colorsys
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

_STAND_INS = dict(_ROLES.values())
_HEX = re.compile("#[0-9a-f]{6}")
_OWN = re.compile(r"var\(--own-([0-9a-f]{6}),")
_PAPER = {"light": "#fdfcfa", "dark": "#161615"}  # of report.css
_CONTRAST = 3.0  # of a line or a name to its paper, as WCAG 2 asks of graphics and large text

_STANDALONE_STYLE = (
    "<style>svg{font-family:system-ui,sans-serif;color:#1a1a1a;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e8e6e1;background:#161614;--muted:#9a9a96;--line:#3a3a3a;--muon:#56b4e9;--adamw:#e69f00;"
    "--sgd:#4cc9a0;--none:#76736d;--other:#d997bd;--higher:#56b4e9;--lower:#f09a3c}}*{stroke-linejoin:round}</style>"
)


def colour(role: str) -> str:
    """Return the stand-in colour of a role; of "#rrggbb" itself; other roles share one."""
    if _HEX.fullmatch(role) and role not in _STAND_INS:
        return role
    return _ROLES.get(role, _ROLES["other"])[0]


def own_style(svg: str) -> str:
    """Return the CSS of the colours that a reader gave, "#rrggbb", on light and on dark paper; empty without any.

    A colour that would hardly be seen on its paper is made darker, or lighter, until it has enough contrast.
    """
    own = sorted(set(_OWN.findall(svg)))
    if not own:
        return ""

    def properties(paper: str) -> str:
        return ";".join(f"--own-{digits}:{readable(f'#{digits}', _PAPER[paper])}" for digits in own)

    light, dark = properties("light"), properties("dark")
    return f":root,svg{{{light}}}@media(prefers-color-scheme:dark){{:root,svg{{{dark}}}}}"


def readable(color: str, paper: str) -> str:
    """Return a colour "#rrggbb", darker or lighter where needed to be seen on paper of another."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_shares(color))
    step = -0.02 if _luminance(paper) > 0.5 else 0.02
    while _contrast(color, paper) < _CONTRAST:
        lightness = min(max(lightness + step, 0.0), 1.0)
        color = "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))
    return color


def _shares(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _luminance(color: str) -> float:
    """Return the relative luminance (WCAG 2)."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in _shares(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themed(svg: str, title: str, prefix: str) -> str:
    """Return matplotlib's SVG as an element for a page: themed, rounded, with a title and with ids under a prefix."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # it would reach out into the page
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = re.sub(r"(stroke|fill): (#[0-9a-f]{6})", _themed_colour, svg)
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
    style = _STANDALONE_STYLE.replace("</style>", f"{own_style(themed_svg)}</style>")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + themed_svg.replace(">", f">{style}", 1) + "\n"


def _themed_colour(match: re.Match[str]) -> str:
    """Return what a stand-in becomes; any other colour is one that a reader gave."""
    what, color = match.groups()
    return f"{what}: {_STAND_INS.get(color, f'var(--own-{color[1:]}, {color})')}"


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
