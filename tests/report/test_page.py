import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import synthetic_study as synthetic
from muonlab.jobs import files
from muonlab.jobs.files import StudyError
from muonlab.report import page as report
from muonlab.report.figures import draw
from muonlab.report.findings import (
    Answered,
    Answers,
    Axis,
    Column,
    Definitions,
    Figure,
    Findings,
    ForestRow,
    Line,
    Lines,
    Picture,
    Reply,
    Section,
    Series,
    Table,
    Text,
    Verdict,
)
from muonlab.report.page import LARGEST_TABLE, MOST_ROWS, enlargement, one_line, png, write
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.analysis import analyse

VOID = {"meta", "link", "br", "img", "path", "use", "rect", "circle"}


class Page(HTMLParser):
    """Collects what a page links to and checks that its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.downloads = [], [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            if key in values:
                self.links.append((tag, values[key]))
        if "download" in values:
            self.downloads[values["download"]] = values["href"]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    def fate(config, seed):
        if config.task.name == "mul" and seed == 0:
            return {"muon": "diverged", "adamw": None}[config.optimizer.name]
        return synthetic.usual_fate(config, seed)

    folder = synthetic.write(
        tmp_path_factory.mktemp("study"), synthetic.usual_cells(["add", "mul", "gcd"]), fate, failed=[5]
    )
    assert write(analyse(folder), folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_the_page_loads_nothing_from_elsewhere(folder, page):
    for tag, link in page.links:
        assert link.startswith(("#", "data:")) or (tag == "a" and link == "https://arxiv.org/abs/2504.16041")
    text = (folder / "report.html").read_text()
    assert not re.search(r"@import|<script|<iframe|url\((?!#)", text)


def test_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))


def test_the_verdict_and_its_scope_are_on_the_page(folder):
    text = (folder / "report.html").read_text()
    for part in (
        "Does Muon make a Transformer grok sooner than AdamW?",
        "Inconclusive",
        "neither optimizer was tuned here",
    ):
        assert part in text


def test_what_comes_from_files_is_escaped(folder):
    text = (folder / "report.html").read_text()
    assert "&lt;b&gt;old&lt;/b&gt;" in text
    assert "<b>old" not in text


def test_every_link_to_data_holds_the_file_beside_the_page(folder, page):
    assert {"survival.csv", "curves.csv", "distribution.csv", "ratios-muon-adamw.csv", "times.csv"} <= set(
        page.downloads
    )
    for name, link in page.downloads.items():
        held = base64.b64decode(link.removeprefix("data:text/csv;charset=utf-8;base64,")).decode()
        assert held == (folder / "report" / name).read_text()
    assert {path.name for path in (folder / "report").glob("*.csv")} == set(page.downloads)


def test_every_drawing_is_a_file_that_stands_alone(folder):
    names = sorted(path.name for path in (folder / "report").glob("*.svg"))
    assert {"survival-1.svg", "survival-3.svg", "curves-1.svg", "distribution.svg", "control-curves.svg"} <= set(names)
    for name in names:
        ElementTree.parse(folder / "report" / name)


def test_another_process_writes_the_same_bytes_without_torch_and_removes_figures_of_an_earlier_report(folder):
    before = (folder / "report.html").read_bytes()
    for name in ("survival-99.svg", "old.png", "notes.txt"):
        (folder / "report" / name).write_text("old")
    code = (
        "import sys; from pathlib import Path\n"
        "from muonlab.studies.grokking.analysis import analyse; from muonlab.report.page import write\n"
        f"write(analyse(Path({str(folder)!r})), Path({str(folder)!r}))\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    assert (folder / "report.html").read_bytes() == before
    assert not (folder / "report" / "survival-99.svg").exists()
    assert not (folder / "report" / "old.png").exists()
    assert (folder / "report" / "notes.txt").read_text() == "old"


def test_a_report_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "report").write_text("in the way")
    verdict = Verdict("inconclusive", "Inconclusive", "No.", None, (), (), ())
    with pytest.raises(StudyError, match="is in the way"):
        write(Findings("t", "q?", verdict, (Text("n"),), ()), tmp_path)


SHEET = Picture(
    "sheet", "Fifteen <corruptions>", "By severity.", 2, 2, 1, "AEB/wA==", ("fog & frost", "snow"), ("0", "5")
)


def with_elements(*elements):
    verdict = Verdict("inconclusive", "Inconclusive", "No.", None, (), (), ())
    return Findings("t", "q?", verdict, (), (Section("s", elements),))


def test_a_picture_is_on_the_page_with_its_words_and_beside_it(tmp_path):
    path = write(with_elements(SHEET), tmp_path)
    page, text = Page(path.read_text()), path.read_text()
    (link,) = [link for tag, link in page.links if tag == "img"]
    held = base64.b64decode(link.removeprefix("data:image/png;base64,"))
    assert held == (tmp_path / "report" / "sheet.png").read_bytes()
    assert held.startswith(b"\x89PNG")
    for part in (
        'alt="Fifteen &lt;corruptions&gt;"',
        "<span>fog &amp; frost</span><span>snow</span>",
        "<span>5</span>",
    ):
        assert part in text
    assert "By severity." in text


def test_two_pictures_of_one_name_are_a_mistake(tmp_path):
    with pytest.raises(AssertionError, match="two pictures are named 'sheet'"):
        write(with_elements(SHEET, SHEET), tmp_path)


LINE = Line(Series("Muon", "muon"), 5, (0, 1), (0.9, 0.8), (0.85, 0.7), (0.95, 0.9))
SEVERITY = Figure("severity", "By severity", "", Axis("severity"), Axis("accuracy"), (Lines("", (LINE,)),))


def test_lines_are_on_the_page_with_their_data_and_drawing_beside_it(tmp_path):
    text = write(with_elements(SEVERITY), tmp_path).read_text()
    assert "Muon n=5" in text
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"severity.csv", "severity.svg"}


def test_what_is_next_to_the_verdict_comes_before_all_sections_and_is_written_like_them(tmp_path):
    shown = replace(with_elements(Text("in a section")), first=(SEVERITY,))
    text = write(shown, tmp_path).read_text()
    assert text.index('class="sentence"') < text.index("Muon n=5") < text.index("<nav") < text.index("in a section")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"severity.csv", "severity.svg"}


# ---- the first screen ----

CAUTIONS = ("Rates lie on an edge: Muon 0.1", "Few seeds. There are 3.", "The third: with numbers", "Plain.")


def first_screen(folder, notices=(), **verdict):
    held = Verdict("yes", "Yes", "A minus B.", None, ("In numbers.",), (("runs", "3"),), CAUTIONS)
    return write(Findings("t", "q?", replace(held, **verdict), notices, ()), folder).read_text()


def test_two_cautions_of_one_line_stand_above_the_figure_and_the_rest_unfolds(tmp_path):
    text = first_screen(tmp_path)
    above, below = text.split('<dl class="scope">')
    assert above.count('class="caution') == 2
    for line, rest in (("Rates lie on an edge.", "Muon 0.1"), ("Few seeds.", "There are 3.")):
        assert f"<summary>{line}</summary><p>{rest}</p></details>" in above
    assert "<li>The third. With numbers</li>" in below
    assert 'More cautions <span class="count">2</span>' in below
    assert "In numbers." in below[below.index("<details>") :]


def test_warnings_come_before_cautions_and_notes_after_the_scope(tmp_path):
    text = first_screen(tmp_path, (Text("An old version.", "note"), Text("A CONTROL FAILED: labels.", "warning")))
    above, below = text.split('<dl class="scope">')
    assert above.index("A CONTROL FAILED.") < above.index("Rates lie on an edge.")
    assert "Few seeds." not in above
    assert "An old version." in below


@pytest.mark.parametrize(
    ("text", "line", "rest"),
    [
        ("Above 0.5 at 1.2 epochs", "Above 0.5 at 1.2 epochs", ""),
        ("One line.", "One line.", ""),
        ("Edges: Muon (low). More", "Edges.", "Muon (low). More"),
        ("First. second: third", "First.", "Second: third"),
    ],
)
def test_a_caution_is_broken_at_its_first_colon_or_full_stop(text, line, rest):
    assert one_line(text) == (line, rest)


ROW = ForestRow("minus B", Estimate(0.5, 0.25, 0.75, reason="adjusted for 3 comparisons"), "5 + 5", decided=False)
ANSWERS = Answers(
    "answers", "Claims", ("Answer",), (Answered("(a) Loss", "loss", (Reply("no", "No", (0, 1, 2), (ROW,)),)),)
)


def test_an_answer_says_its_direction_its_effect_and_why_an_interval_without_0_is_undecided(tmp_path):
    text = write(replace(with_elements(), first=(ANSWERS,)), tmp_path).read_text()
    words = " ".join(re.sub("<[^>]+>", " ", text[text.index('<table class="answers') :]).split())
    assert "(a) Loss loss No 0 higher, 1 lower, 2 undecided; n = 5 + 5 minus B 0.500 [0.250, 0.750] †" in words
    assert "† adjusted for 3 comparisons." in words
    assert (tmp_path / "report" / "answers.csv").exists()


def test_a_long_table_is_folded_and_none_of_the_first_screen(tmp_path):
    def table(name, number):
        return Table(name, name, (Column("k", "K"),), tuple((f"{k}",) for k in range(number)))

    shown = with_elements(table("short", MOST_ROWS), table("long", MOST_ROWS + 1))
    text = write(replace(shown, first=(table("first", 50),)), tmp_path).read_text()
    assert re.findall(r"<summary>(\w+)", text) == ["long"]


def test_a_table_of_very_many_rows_is_data_to_load(tmp_path):
    rows = tuple((f"row {k}",) for k in range(LARGEST_TABLE + 1))
    text = write(with_elements(Table("many", "Many", (Column("k", "K"),), rows, "A note.")), tmp_path).read_text()
    assert "row 3" not in text
    assert 'download="many.csv"' in text
    assert "Columns: K. A note." in text


def test_a_definition_stands_once_and_its_terms_lead_to_it(tmp_path):
    words = Definitions((("Margin", "The smallest."),))
    path = write(with_elements(Text("A margin."), words), tmp_path)
    page, text = Page(path.read_text()), path.read_text()
    assert ("a", "#term-margin") in page.links
    assert "term-margin" in page.ids
    assert text.count("The smallest.") == 1


def test_every_file_is_renamed_into_its_place_and_the_page_last(tmp_path, monkeypatch):
    written = []

    def recorded(write_file):
        def put(path, content):
            written.append(path.relative_to(tmp_path).as_posix())
            write_file(path, content)

        return put

    for name in ("write_text", "write_bytes"):
        monkeypatch.setattr(report, name, recorded(getattr(files, name)))
    write(with_elements(SHEET, SEVERITY), tmp_path)
    assert written[-1] == "report.html"
    assert sorted(written[:-1]) == sorted(f"report/{path.name}" for path in (tmp_path / "report").iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_the_png(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    picture = Picture("p", "P", "", 7, 5, channels, base64.b64encode(pixels.tobytes()).decode())
    read = np.asarray(Image.open(io.BytesIO(png(picture))))
    np.testing.assert_array_equal(read.reshape(5, 7, channels), pixels)


@pytest.mark.parametrize(("shape", "times"), [((8, 8), 80), ((508, 202), 2), ((64, 640), 1), ((2000, 10), 1)])
def test_a_picture_is_enlarged_by_a_whole_number_up_to_the_width_of_the_page(shape, times):
    assert enlargement(Picture("p", "P", "", shape[1], shape[0], 1, "")) == times


def test_degenerate_axes_warn_of_nothing(tmp_path):
    # parity with one bit is learnt before the first step; budget = cadence leaves one evaluation after it
    cells = [
        synthetic.cell("parity", "softmax", optimizer, [0], labels=labels, task__bits=1, protocol__budget=50)
        for labels in ("true", "random")
        for optimizer in ("muon", "adamw")
    ]
    more = [synthetic.cell("parity", "softmax", o, range(3), task__bits=1) for o in ("muon", "adamw")]
    for number, (chosen, step) in enumerate([(cells, 0), (cells, 50), (cells, None), (more, 0)]):
        folder = synthetic.write(tmp_path / str(number), chosen, lambda *_, step=step: step)
        for section in analyse(folder).sections:
            for element in section.elements:
                if isinstance(element, Figure):
                    draw(element)
