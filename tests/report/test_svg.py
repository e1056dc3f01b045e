import re
from xml.etree import ElementTree

import pytest

from muonlab.report.svg import PAPER, ROLES, colour, palette, standalone, themed

RAW = f"""<?xml version="1.0"?>
<!DOCTYPE svg>
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="10pt" viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg">
 <defs>
  <style type="text/css">*{{stroke: red}}</style>
 </defs>
 <g id="axes_1"><path id="m123" d="M 1.23456 -7.00001" style="stroke: {colour("muon")}"/></g>
 <use xlink:href="#m123"/>
 <text style="font-size: 9px; font-family: 'DejaVu Sans', sans-serif; fill: {colour("ink")}">lr=0.00123 &lt; 1</text>
</svg>"""


def test_a_drawing_takes_colours_and_font_from_the_page_and_keeps_its_words():
    svg = themed(RAW, 'a "b" & <c>')
    assert 'd="M 1.23 -7" style="stroke: var(--muon, #0072b2)"' in svg
    assert '<text style="font-size: 9px; fill: currentColor">lr=0.00123 &lt; 1</text>' in svg
    assert "<style" not in svg
    assert "axes_1" not in svg
    assert svg.count("m123") == 2
    root = ElementTree.fromstring(svg)
    assert (root.get("aria-label"), root.get("width"), root.get("viewBox")) == ('a "b" & <c>', None, "0 0 10 10")
    assert ElementTree.fromstring(standalone(svg).encode()).get("viewBox") == "0 0 10 10"


def test_unknown_roles_share_a_colour_and_a_given_colour_is_never_taken_for_a_role():
    assert colour("lion") == colour("shampoo") == colour(colour("muon")) != colour("muon")


def test_a_colour_that_a_user_gave_is_mixed_with_ink_so_that_it_can_be_seen_on_light_and_dark_paper():
    svg = themed(RAW.replace(colour("muon"), colour("#112233")), "t")
    assert "stroke: var(--own-112233, #112233)" in svg
    assert "--own-112233:color-mix(in oklab,#112233 50%,var(--ink))" in palette(svg)
    assert palette(svg) in standalone(svg)
    assert "--own" not in palette(themed(RAW, "t"))


@pytest.mark.parametrize("role", ROLES)
def test_every_role_can_be_seen_on_light_and_on_dark_paper(role):
    light, dark = re.findall(rf"--{role}:(#[0-9a-f]{{6}})", palette(""))
    for color, paper in ((light, PAPER[0]), (dark, PAPER[1])):
        assert contrast(color, paper) >= (
            1.2 if role == "line" else 3
        )  # what graphics need; lines of axes may be faint


def contrast(one, other):
    """As WCAG 2 defines it."""

    def luminance(color):
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
