"""Every export read back by those it is made for: pandas, polars, pyarrow, a LaTeX parser, TensorBoard."""

import json
import sys
import types
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

import muonlab
from muonlab.cli import main
from muonlab.export import files, tables, trackers
from muonlab.export.formats import as_latex, escaped
from muonlab.export.tables import columns
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Axis, Figure, Findings, Forest, ForestRow, Line, Lines, Section, Series, Verdict
from muonlab.stats.results import Estimate
from muonlab.study.settings import UsageError

STUDY = Path(__file__).parents[2] / "records" / "first-light" / "study"
NAMES = ["comparisons", "evaluations", "runs"]


@pytest.fixture(scope="module")
def expected():
    return {name: columns(rows) for name, rows in tables.read(STUDY).items()}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The study exported by the command line."""
    place = tmp_path_factory.mktemp("export")
    with pytest.raises(SystemExit, match="0"):
        main(["export", str(STUDY), "--to", "csv,json,latex", "--out", str(place)])
    return place


def as_read(frame):
    """Return the columns of pandas' frame, missing values as None."""
    return {name: [None if value != value else value for value in frame[name]] for name in frame}


def test_csv_is_read_back_by_pandas_and_polars(out, expected):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert sorted(path.stem for path in out.glob("*.csv")) == NAMES
    for name in NAMES:
        path = out / f"{name}.csv"
        # "job" and the like may look like numbers, so columns of text are said to be text.
        texts = {key: str for key, values in expected[name].items() if any(isinstance(v, str) for v in values)}
        assert as_read(pandas.read_csv(path, dtype=texts, float_precision="round_trip")) == blank(expected[name])
        read = polars.read_csv(path, infer_schema_length=None, schema_overrides=dict.fromkeys(texts, polars.String))
        assert read.to_dict(as_series=False) == blank(expected[name])


def blank(found):
    """Return columns with nothing in place of an empty text: CSV does not tell the two apart."""
    return {key: [None if value == "" else value for value in values] for key, values in found.items()}


def test_json_is_a_list_of_objects_with_the_same_keys(out, expected):
    for name in NAMES:
        rows = json.loads((out / f"{name}.json").read_text())
        assert {key: [row[key] for row in rows] for key in rows[0]} == expected[name]


def test_parquet_is_read_back_with_its_types(tmp_path, expected):
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in files.write(STUDY, ["parquet"], tmp_path):
        assert parquet.read_table(path).to_pydict() == expected[path.stem]


def test_latex_is_a_table_with_as_many_cells_in_every_row(out, expected):
    walker = pytest.importorskip("pylatexenc.latexwalker")
    for name in ("comparisons", "runs"):
        nodes = walker.LatexWalker((out / f"{name}.tex").read_text(), tolerant_parsing=False).get_latex_nodes()[0]
        (table,) = [node for node in nodes if isinstance(node, walker.LatexEnvironmentNode)]
        assert table.environmentname == "longtable"
        body = "".join(node.latex_verbatim() for node in table.nodelist[1:])
        lines = [line.replace(r"\&", "") for line in body.split(r"\\")[:-1]]
        comments = (out / f"{name}.tex").read_text().split(r"\begin")[0].count("\n% ")
        assert {line.count("&") + 1 for line in lines} == {len(expected[name]) - comments}
        assert len(lines) == len(next(iter(expected[name].values()))) + 1


def test_latex_escapes_what_has_a_meaning_there():
    latex2text = pytest.importorskip("pylatexenc.latex2text")
    text = r"50% of {a_b} & #1 \ $x ~"
    assert latex2text.LatexNodes2Text().latex_to_text(escaped(text)) == text
    assert escaped(1.5e-7) == r"$1.5 \times 10^{-7}$"
    assert escaped("3 × 10⁻⁵") == r"3 $\times$ 10\textsuperscript{-}\textsuperscript{5}"
    assert escaped(True) == "true"


def test_what_is_the_same_in_every_row_is_a_comment():
    assert as_latex([{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]).decode().splitlines()[:4] == [
        r"% \usepackage{booktabs,longtable}", "% b: x", r"\begin{longtable}{r}", r"\toprule",
    ]  # fmt: skip


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_load_returns_data_frames(library, expected):
    package = pytest.importorskip(library)
    found = muonlab.load(STUDY, library)
    assert {name: list(frame.columns) for name, frame in found.items()} == {
        name: list(values) for name, values in expected.items()
    }
    assert all(isinstance(frame, package.DataFrame) for frame in found.values())
    assert list(found["runs"]["seed"]) == expected["runs"]["seed"]


def test_load_without_a_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr("muonlab.export.frames.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(StudyError, match=r"muonlab.load needs the package pandas.*pip install 'pandas'"):
        muonlab.load(STUDY)
    with pytest.raises(UsageError, match="unknown library 'excel'; expected one of pandas, polars"):
        muonlab.load(STUDY, "excel")


def test_figures_are_files_of_their_own(tmp_path, monkeypatch):
    row = ForestRow("add", Estimate(0.6, 0.5, 0.7), "5 + 5")
    panel = Forest("softmax", (row,), 1.0, "Muon sooner", "AdamW sooner")
    series = Series("Muon", "muon"), Series("Own", "#a0b1c2")
    lines = [Lines(one.label, (Line(one, 3, (0.0, 1.0), (0.5, 1.0), (0.4, 0.9), (0.6, 1.1)),)) for one in series]
    forest = Figure("ratios", "Ratios", "", Axis("ratio", log=True), Axis(""), (panel,))
    curves = Figure("curves", "Curves", "", Axis("step"), Axis("loss"), tuple(lines))
    verdict = Verdict("yes", "yes", "Yes.", None, (), (), ())
    found = Findings("T", "Q?", verdict, (), (Section("S", (curves,)),), first=(forest,))
    monkeypatch.setattr("muonlab.studies.grokking.analyse", lambda folder: found)
    written = files.write(STUDY, ["svg", "png"], tmp_path)
    assert [path.name for path in written] == [
        f"{name}.{kind}" for kind in ("svg", "png") for name in ("ratios", "curves-1", "curves-2")
    ]
    for path in written[:3]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in written[3:]:
        image = Image.open(path).convert("RGB")
        assert image.width > 900
        colours = {colour for _, colour in image.getcolors(2**20)}
        assert not any(red == green == 0 and 0 < blue < 16 for red, green, blue in colours), "a stand-in"
        assert image.getpixel((0, 0)) == (0xFD, 0xFC, 0xFA)
        own = (0x00, 0x72, 0xB2) if path.stem == "curves-1" else (0xA0, 0xB1, 0xC2)
        assert (own in colours) == path.stem.startswith("curves")


def test_tensorboard_reads_every_curve_once(tmp_path, expected):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'muonlab[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        files.write(STUDY, ["tensorboard"], tmp_path)
    places = sorted((tmp_path / "tensorboard").iterdir())
    assert len(places) == len(expected["runs"]["job"])
    rows = expected["evaluations"]
    found = EventAccumulator(str(places[0])).Reload()
    job, run = places[0].name.split("-")[-2:]
    own = [i for i, name in enumerate(rows["job"]) if name.startswith(job) and rows["run"][i] == int(run)]
    curve = [(event.step, event.value) for event in found.Scalars("validation_accuracy")]
    assert curve == [(rows["step"][i], pytest.approx(rows["validation_accuracy"][i], rel=1e-6)) for i in own]


def test_weights_and_biases_has_every_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    found = {name: rows[:2] if name == "runs" else rows for name, rows in tables.read(STUDY).items()}
    trackers.log("wandb", found, STUDY, tmp_path)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


class StandIn(types.ModuleType):
    """Keeps runs as trackio does: `init`, `log` and `finish` make them, `Api` reads them."""

    def __init__(self, place):
        super().__init__("trackio")
        self.kept, self.utils = [], types.SimpleNamespace(TRACKIO_DIR=str(place))

    def Api(self):  # noqa: N802
        return types.SimpleNamespace(runs=self._runs)

    def _runs(self, project):
        if not self.kept:
            raise ValueError(f"Project '{project}' does not exist")
        return list(self.kept)

    def init(self, project, name=None, *, config, embed, auto_log_gpu, auto_log_cpu):
        assert (embed, auto_log_gpu, auto_log_cpu) == (False, False, False)
        print(f"* Created new run: {name}")
        run = types.SimpleNamespace(project=project, name=name, config=config, logs=[], is_done=False)
        run.delete = lambda: self.kept.remove(run)
        self.kept.append(run)

    def log(self, metrics, step=None):
        self.kept[-1].logs.append((step, metrics))

    def finish(self):
        self.kept[-1].is_done = True


def few_runs():
    return {name: rows[:2] if name == "runs" else rows for name, rows in tables.read(STUDY).items()}


def test_trackio_is_given_every_run_once(tmp_path, monkeypatch, capsys):
    trackio = StandIn(tmp_path)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    own = [run.name for run in trackers.runs(few_runs())]
    for number in range(2):
        assert trackers.log("trackio", few_runs(), STUDY, tmp_path) == tmp_path
        if number == 0:  # one of the same name that the user has made
            trackio.kept.insert(0, types.SimpleNamespace(name=own[0], config={"job": "mine"}))
    assert capsys.readouterr().out == ""
    assert [run.name for run in trackio.kept] == [own[0], *own]
    for kept, run in zip(trackio.kept[1:], trackers.runs(few_runs()), strict=True):
        assert (kept.config, kept.logs, kept.is_done) == (run.settings, run.points, True)


def test_trackio_reads_every_curve_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own
        trackio = pytest.importorskip("trackio", reason="trackio is not installed: pip install 'muonlab[trackio]'")
        monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path)
        monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path)
        for _ in range(2):
            trackers.log("trackio", few_runs(), STUDY, tmp_path)
        assert sorted(run.name for run in trackio.Api().runs("study")) == sorted(
            run.name for run in trackers.runs(few_runs())
        )
        for run in trackers.runs(few_runs()):
            logs = trackio.sqlite_storage.SQLiteStorage.get_logs("study", run.name)
            assert [(row["step"], row["validation_accuracy"]) for row in logs] == [
                (step, values["validation_accuracy"]) for step, values in run.points
            ]


def test_mistakes_are_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for words, status, said in (
        (["--to", "cvs"], 2, "unknown format 'cvs'; did you mean 'csv'?"),
        (["--to", "parquet"], 1, "Parquet needs the package pyarrow"),
    ):
        with pytest.raises(SystemExit, match=str(status)):
            main(["export", str(STUDY), *words, "--out", str(tmp_path / "out")])
        assert said in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="is in the way"):
        files.write(STUDY, ["csv"], tmp_path / "file")


@pytest.fixture
def watched(tmp_path):
    """A file as `muonlab.measure.Watch` leaves it when it is killed while it writes."""
    path = tmp_path / "watch.jsonl"
    rows = [
        {"step": step, "hidden_rank/body": 4.5 - step / 10, "margin": None if step == 20 else 0.5} for step in (10, 20)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"step": 30, "hid')
    return path


def test_rows_of_a_watched_training_are_one_run(watched):
    pytest.importorskip("pandas")
    found = muonlab.load(watched, "pandas")
    assert as_read(found["evaluations"]) == {
        "job": ["watch"] * 2, "step": [10, 20], "hidden_rank/body": [3.5, 2.5], "margin": [0.5, None],
    }  # fmt: skip
    assert found["runs"].to_dict("records") == [{"job": "watch", "steps": 20, "final.hidden_rank/body": 2.5}]
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = files.write(watched, ["tensorboard"])
    curve = EventAccumulator(str(place / "watch")).Reload().Scalars("hidden_rank/body")
    assert [(event.step, event.value) for event in curve] == [(10, 3.5), (20, 2.5)]


def test_a_file_of_something_else_is_refused(watched, tmp_path):
    other = tmp_path / "other.jsonl"
    for text in ("", '{"loss": 1.0}\n', '{"step": "1"}\n'):
        other.write_text(text)
        with pytest.raises(
            StudyError, match="has no evaluations; expected a study's folder, or JSON lines with a step"
        ):
            muonlab.load(other)
    other.write_text("not json\n{}\n")
    with pytest.raises(StudyError, match="is torn, from line 1"):
        muonlab.load(other)
    with pytest.raises(StudyError, match="is a file, which has no figures; expected csv, parquet"):
        files.write(watched, ["csv", "svg"])
    assert not (tmp_path / "export").exists()
