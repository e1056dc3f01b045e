"""The docs say what is there: every verb, key and file; and the README's code blocks run."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from image_files import write, zipped
from inline import InlinePool
from muonlab import __version__, inspect
from muonlab.cli import app, main
from muonlab.jobs import local, store
from muonlab.jobs.clock import Clock
from muonlab.jobs.files import read_json
from muonlab.studies import checkpoints as inspection
from muonlab.studies import components, features, grokking, transfer
from muonlab.studies.compare import ask
from muonlab.studies.compare.plan import CHOICES, OPTIMIZERS, TRAINING, keys_of
from muonlab.studies.components.work import job as component_job
from muonlab.studies.features.work import job
from muonlab.studies.grokking.result import QUANTITIES, CellResult, Crossing, MemberResult
from muonlab.study.described import EXECUTION_KEYS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))]
VERBS = [name for name in app if not name.startswith("-")]


def command_line(*words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 0


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_stands_in_the_docs(verb, capsys):
    command_line(verb, "--help")
    text = capsys.readouterr().out
    assert f"muonlab {verb}" in text
    assert "For example:" in text
    assert any(f"muonlab {verb}" in page for page in PAGES)


@pytest.mark.parametrize("study", [grokking, features, components, transfer])
def test_every_setting_of_a_study_is_printed_with_what_it_means(study, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["settings", study.STUDY, "--json"])
    printed = json.loads(capsys.readouterr().out)
    other_words = {"task", "loss", "optimizer", *(f"{name}.lr" for name in ("muon", "adamw", "sgd"))}
    known = {each["key"] for each in printed}
    assert {"preset", *EXECUTION_KEYS, *study.KEYS} - known <= other_words
    assert [each["key"] for each in printed if not (each["says"] and each["values"])] == []
    (seeds,) = [each for each in printed if each["key"] == "seeds"]
    assert seeds["presets"] == {name: ",".join(preset["seeds"]) for name, preset in study.PRESETS.items()}


def test_every_setting_of_compare_is_printed_with_what_it_means(capsys):
    command_line("settings", "compare", "--json")
    printed = json.loads(capsys.readouterr().out)
    taken = {*ask.WHAT, *ask.PROGRAM, "optimizers", "baseline", ask.STEPS, *CHOICES, *TRAINING, *EXECUTION_KEYS}
    taken |= {key for name in OPTIMIZERS for key in keys_of(name, name, None)}
    other_words = {"budget", *(f"{name}.rates" for name in OPTIMIZERS)}
    assert taken - {each["key"] for each in printed} <= other_words
    assert {each["key"] for each in printed} - taken == {"present.SETTING"}
    assert [each["key"] for each in printed if not (each["says"] and each["values"])] == []


def test_the_settings_of_a_study_in_a_file_are_printed_too(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["settings", str(ROOT / "examples" / "own_study.py")])
    assert "seeds  [a whole number, 1 to 1000]  default: " in capsys.readouterr().out


def test_the_page_of_settings_is_up_to_date():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert runpy.run_path(str(ROOT / "docs" / "tables.py"))["renewed"](page) == page, "run python docs/tables.py"


def test_every_key_of_the_files_stands_in_their_page(tmp_path):
    page = (ROOT / "docs" / "files.md").read_text()
    Clock(tmp_path, {}, "cpu").stop()
    record = read_json(tmp_path / "env.json")
    keys = {*record, *record["sessions"][0], *QUANTITIES}
    for model in (CellResult, MemberResult, Crossing):
        keys |= set(model.model_fields)
    assert [key for key in sorted(keys - {"cell"}) if f"`{key}`" not in page] == []


def test_every_key_of_the_results_of_features_stands_in_their_page(tmp_path):
    sizes = {"examples": 10, "probe_train": 60, "probe_validation": 30, "path_examples": 10}
    small = {f"measure.{name}": size for name, size in sizes.items()} | {"images.transfer_per_class": 10}
    few = {"families": "cnn", "optimizers": "muon", "seeds": 1, "budget": 2, "looks": 1, "cnn.depths": 1}
    study = features.plan("tiny", {**few, **small, "transfer.budget": 1, "transfer.looks": 1})
    keys = set()
    results = store.Results(tmp_path)
    while todo := [one for one in features.jobs_of(study, results.refresh()) if one.id not in results]:
        for one in todo:
            store.add(tmp_path, one)
            keys |= _keys(job.run(config=one.config, folder=str(tmp_path / one.id), compile="never"))
            files = {path.name for path in (tmp_path / one.id).glob("weights-*.safetensors")}
            assert files == ({"weights-0.safetensors", "weights-2.safetensors"} if "final" in one.name else set())
    page = (ROOT / "docs" / "files.md").read_text()
    assert {"members", "models", "layers", "margins", "best_step"} < keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_every_key_of_the_results_of_components_stands_in_their_page(tmp_path):
    few = {"variations": "none", "seeds": 1, "ratio": 2, "optimizers": "sgd", "budget": 2, "looks": 1}
    keys = set()
    for one in components.jobs_of(components.plan("tiny", few), {}):
        keys |= _keys(component_job.run(config=one.config, folder=str(tmp_path / one.id)))
    page = (ROOT / "docs" / "files.md").read_text()
    assert {"members", "at", "end", "margin_worst", "orders"} < keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def _keys(value) -> set[str]:
    """Return the keys of nested JSON, without those of accuracies, which are corruptions."""
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(_keys(each) for key, each in value.items() if key != "accuracy"))


def test_every_link_and_picture_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_has_code_of_both_kinds():
    assert blocks("python")
    assert blocks("sh")


# Every block of python, and the block of text that follows it at once, which is what it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
NAMES = "optimizer", "engine", "extend", "theory", "inspect", "studies", "export", "measure"
RUN = ["README.md", *(f"docs/{page}.md" for page in NAMES)]
RUN += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "frameworks").glob("*.md"))
PYTHON = [
    pytest.param(code, printed, id=f"{name}:{number}")
    for name in RUN
    for number, (code, printed) in enumerate(BLOCK.findall((ROOT / name).read_text()))
]
FRAMEWORK = re.compile(r"^(?:import|from) (accelerate|lightning|peft|timm|transformers)\b", re.MULTILINE)


@pytest.fixture
def tinier(monkeypatch):
    """The tiny presets with a fifth of their steps, in this process: that the pages run is what is tested."""
    monkeypatch.setattr(local, "Pool", InlinePool)
    few = {"budget": "4", "looks": "2", "transfer.budget": "2", "measure.examples": "10", "measure.probe_train": "60"}
    for study, changes in ((grokking, {"budget": "60"}), (features, {**few, "measure.path_examples": "10"})):
        smaller = {key: [value] for key, value in changes.items()}
        monkeypatch.setitem(study.PRESETS, "tiny", study.PRESETS["tiny"] | smaller)


@pytest.mark.usefixtures("tinier")
@pytest.mark.parametrize(("code", "printed"), PYTHON)
def test_python_of_the_pages_runs(code, printed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frameworks = FRAMEWORK.findall(code)
    if frameworks:
        warnings.simplefilter("default")  # what other libraries warn of is not ours
    if "runs/demo" in code:
        shutil.copytree(ROOT / "records" / "first-light" / "study", tmp_path / "runs" / "demo")
    for framework in frameworks:
        pytest.importorskip(framework, exc_type=ImportError)
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    assert not printed or capsys.readouterr().out == printed


def shell_lines(page: str) -> list[str]:
    """Return the commands of a page, without comments, which read a finished study in runs/study."""
    lines = "".join(blocks("sh", (ROOT / page).read_text())).replace("\\\n", "").splitlines()
    lines = [re.sub(r"runs/(demo|my_study)\b", "runs/study", line.partition(" # ")[0].rstrip()) for line in lines]
    return [line for line in lines if line and not line.startswith("#")]


# tests/test_cli_inspect.py runs those of docs/inspect.md
WITH_COMMANDS = "cluster", "compare", "export", "extend", "own-study", "studies"
COMMANDS = ["README.md", *(f"docs/{page}.md" for page in WITH_COMMANDS)]
# tests/studies/compare runs the built-in tasks, whose first steps take many seconds together
SLOW = re.compile("muonlab compare (suite=|task=(cnn|gpt))")
SHELL = sorted({line for page in COMMANDS for line in shell_lines(page) if not SLOW.match(line)})


@pytest.mark.parametrize("line", SHELL)
@pytest.mark.usefixtures("tinier")
def test_shell_of_the_pages_runs(line, tmp_path, monkeypatch):
    """A make target is only looked up (.ci/run makes test and demo); what takes minutes is run dry."""
    words = shlex.split(line)
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    if words[0] in ("git", "cd", "pip"):
        return
    assert words[0] == "muonlab", f"no test knows how to run {line!r}"
    place_files(tmp_path)
    if words[1] in ("compare", "run"):
        words += [] if "--dry-run" in words else ["--dry-run"]
    else:
        shutil.copytree(ROOT / "records" / "first-light", tmp_path / "runs")  # a report is written next to it
    for word, package in {"parquet": "pyarrow", "tensorboard": "tensorboard"}.items():
        if word in line:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command_line(*words[1:])


def place_files(folder):
    """Put there what readers are to have: the examples, and data and sources of their own."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "compare_command" / "train.py", folder / "train.py")
    data = "my_train_set = my_validation_set = [(torch.ones(64) * k, k) for k in range(10)] * 20\n"
    (folder / "my_project.py").write_text(blocks("python", (ROOT / "docs" / "compare.md").read_text())[0] + data)
    (folder / "my_study.py").write_text(blocks("python", (ROOT / "docs" / "own-study.md").read_text())[0])
    net = "nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 9), nn.Linear(9, classes))"
    (folder / "my_nets.py").write_text(
        f"import math\n\nfrom torch import nn\n\n\ndef resnet(shape, classes):\n    return {net}\n"
    )
    (folder / "my_pkg.py").write_text("from torch.optim import NAdam as Mine\n")
    (folder / "my_text.txt").write_text("A text of some length. " * 300)
    (folder / "table.csv").write_text("a,b,target\n" + "".join(f"{k},{k % 7},{k % 3 + 0.5}\n" for k in range(200)))
    names = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(30)]
    zipped(write(folder / "images", names, np.zeros((60, 8, 8, 3), np.uint8)))


def test_every_setting_of_an_inspection_stands_in_its_page():
    page = (ROOT / "docs" / "inspect.md").read_text()
    assert [key for key in (*inspection.KEYS, "out", "device") if f"`{key}`" not in page] == []


def test_every_key_of_the_result_of_an_inspection_stands_in_their_page(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 10))
    few = {"examples": 10, "probe_train": 60, "probe_validation": 30}
    found = inspect({"A": net}, data="digits", transfer="digits", measure=few, out=tmp_path)
    page = (ROOT / "docs" / "files.md").read_text()
    keys = _keys(found.result)
    assert {"margins_by_example", "corrupted_by_example", "transfer", "groups"} <= keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_the_engines_table_is_that_of_its_record():
    command = [sys.executable, "benchmarks/engine_table.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_page_is_in_the_navigation_of_the_site():
    """make docs builds it, and says the same."""
    assert runpy.run_path(str(ROOT / "docs" / "build.py"))["astray"]() == []


def test_a_link_that_leads_nowhere_stops_the_build_of_the_site():
    linked = runpy.run_path(str(ROOT / "docs" / "build.py"))["linked"]
    assert linked(Path("docs/compare.md"), "../records") == Path("records/README.md")
    for target in ("nowhere.md", "../../elsewhere.md", "../src"):
        with pytest.raises(SystemExit, match=r"docs/compare.md links to .*there is no"):
            linked(Path("docs/compare.md"), target)


def test_no_page_names_a_place_of_one_machine():
    for page in PAGES:
        assert not re.search(r"(^|[\s`(])/(home|root|work|Users|tmp)/", page)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = (ROOT / "CITATION.cff").read_text()


def test_the_version_is_one_and_the_address_stands_everywhere_or_nowhere():
    assert re.search(r"^version: (.+)$", CITATION, re.MULTILINE)[1] == PROJECT["version"] == __version__
    has_address = ["urls" in PROJECT, "repository-code:" in CITATION, "git+ADDRESS" not in README]
    assert len(set(has_address)) == 1, has_address


def test_every_extra_that_a_message_or_a_page_names_is_there():
    texts = [*PAGES, *(path.read_text() for path in (ROOT / "src").rglob("*.py"))]
    named = {
        extra for text in texts for found in re.findall(r"muonlab\[([\w,]+)\]", text) for extra in found.split(",")
    }
    assert {"ray", "slurm", "serve", "trackio", "wandb"} <= named <= {*PROJECT["optional-dependencies"]}
