import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.report import svg as module
from muonlab.report.svg import colour, own_style, readable, standalone, themed

RAW = f"""<?xml version="1.0"?>
<!DOCTYPE svg>
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="10pt" viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg">
 <metadata>x</metadata><defs><style type="text/css">*{{stroke: red}}</style></defs>
 <!-- a note -->
 <g id="unused"><path id="used" d="M 1.23456 -7.00001" style="stroke: {colour("muon")}"/></g>
 <use xlink:href="#used" clip-path="url(#used)"/>
 <text style="font: bold 9.5px 'DejaVu Sans', sans-serif; fill: {colour("ink")}">lr=0.00123 &lt; 1</text>
 <text style="font-size: 9px; font-family: 'DejaVu Sans', 'Arial', sans-serif; text-anchor: end">x</text>
</svg>"""


def test_a_drawing_takes_its_colours_from_the_page():
    svg = themed(RAW, "Ratio", "ratios")
    assert "stroke: var(--muon, #0072b2)" in svg
    assert "fill: currentColor" in svg
    assert "<style" not in svg


def test_unknown_roles_share_a_colour():
    assert colour("lion") == colour("shampoo") != colour("muon")


def test_a_colour_that_a_reader_gave_stands_and_is_seen_on_dark_pages_too():
    svg = themed(RAW.replace(colour("muon"), colour("#112233")), "t", "t")
    assert "stroke: var(--own-112233, #112233)" in svg
    style = own_style(svg)
    light, dark = re.findall("--own-112233:(#[0-9a-f]{6})", style)
    assert light == "#112233"
    assert contrast(dark, "#161615") >= 3
    assert style in standalone(svg)
    assert own_style(themed(RAW, "t", "t")) == ""


def test_a_given_colour_that_is_a_stand_in_is_not_taken_for_a_role():
    assert colour("#040404") == colour("other")  # the stand-in of muon


def contrast(one, other):
    """As WCAG 2 defines it."""

    def luminance(color):
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@given(st.integers(0, 2**24 - 1), st.sampled_from(["#fdfcfa", "#161615"]))
def test_every_colour_can_be_seen_on_its_paper(number, paper):
    color = f"#{number:06x}"
    found = readable(color, paper)
    assert contrast(found, paper) >= 3
    assert found == color or contrast(color, paper) < 3


def test_numbers_are_rounded_in_tags_and_never_in_text():
    svg = themed(RAW, "Ratio", "ratios")
    assert 'd="M 1.23 -7"' in svg
    assert "lr=0.00123 &lt; 1" in svg


def test_ids_are_dropped_or_stand_under_the_prefix():
    svg = themed(RAW, "Ratio", "ratios")
    assert "unused" not in svg
    assert svg.count("ratios-used") == 3


def test_a_font_size_stays_and_the_family_is_the_pages():
    svg = themed(RAW, "Ratio", "ratios")
    assert "font-weight: bold; font-size: 9.5px; fill" in svg
    assert 'style="font-size: 9px; text-anchor: end"' in svg


def test_it_is_well_formed_and_named():
    svg = themed(RAW, 'a "b" & <c>', "ratios")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "b" & <c>'
    assert root.get("width") is None
    assert ElementTree.fromstring(standalone(svg).encode()).get("viewBox") == "0 0 10 10"


@pytest.mark.parametrize("role", ["muted", "line", "muon", "adamw", "sgd", "none", "other"])
def test_every_role_has_a_colour_on_light_and_dark_pages_and_in_a_file_of_its_own(role):
    style = (Path(module.__file__).parent / "templates" / "report.css").read_text()
    assert len(re.findall(rf":root {{[^}}]*--{role}: #", style)) >= 2
    alone = standalone(themed(RAW.replace(colour("muon"), colour(role)), "t", "t"))
    assert re.search(rf"stroke: var\(--{role}, #\w{{6}}\)", alone)
    assert f"--{role}:#" in alone
