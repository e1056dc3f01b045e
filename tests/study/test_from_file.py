"""Studies from a TOML or YAML file: the settings, ids and messages of the same words."""

from pathlib import Path

import pytest

from muonlab.cli import main
from muonlab.studies import grokking
from muonlab.study import from_file
from muonlab.study.settings import UsageError, parse

TOML = """# Muon at two rates
study = "grokking"
preset = "tiny"
tasks = ["add", "mul"]
seeds = 2
betas = [[0.9, 0.99], [0.95, 0.98]]

[muon]
lr = [1e-2, 0.020]
nesterov = true
"""
YAML = """# Muon at two rates
study: grokking
preset: tiny
tasks: [add, mul]
seeds: 2
betas: [[0.9, 0.99], [0.95, 0.98]]
muon:
  lr: [1e-2, 0.020]
  nesterov: true
"""
WORDS = (
    "preset=tiny", "tasks=add,mul", "seeds=2", "betas=[0.9,0.99],[0.95,0.98]", "muon.lr=1e-2,0.020",
    "muon.nesterov=true",
)  # fmt: skip


@pytest.fixture(params=["study.toml", "study.yaml"])
def path(request, tmp_path):
    """The study as a file of both kinds."""
    place = tmp_path / request.param
    place.write_text(TOML if place.suffix == ".toml" else YAML)
    return place


def test_a_file_has_the_words_of_the_command_line(path):
    found = from_file.read(path)
    assert (found.study, found.words) == ("grokking", WORDS)
    assert found.lines["seeds"] == 5
    assert found.lines["muon.lr"] == (9 if path.suffix == ".toml" else 8)
    assert found.with_words(["seeds=3", "out=x"]) == (*(w for w in WORDS if w != "seeds=2"), "seeds=3", "out=x")


def test_the_ids_are_those_of_the_words(path):
    words = [word for word in from_file.read(path).words if "betas" not in word and "nesterov" not in word]
    own = [word for word in WORDS if "betas" not in word and "nesterov" not in word]
    plans = [parse(each, ("preset", *grokking.KEYS)) for each in (words, own)]
    asked = [grokking.plan(given.pop("preset")[0], given) for given in plans]
    assert asked[0] == asked[1]
    assert [job.id for job in grokking.jobs_of(asked[0], {})] == [job.id for job in grokking.jobs_of(asked[1], {})]


def command_line(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code, capsys.readouterr()


def test_a_file_is_run_as_the_words_are(tmp_path, capsys):
    (tmp_path / "study.toml").write_text('study = "grokking"\npreset = "tiny"\nseeds = 2\n')
    expected = command_line(capsys, "run", "grokking", "preset=tiny", "seeds=3", f"out={tmp_path / 'x'}", "--dry-run")
    found = command_line(capsys, "run", tmp_path / "study.toml", "seeds=3", f"out={tmp_path / 'x'}", "--dry-run")
    assert found == expected
    assert found[0] == 0


def test_a_comparison_in_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(
        'study: compare\ncommand: "train.py --lr {lr} --seed {seed} --n {steps} --out {run} --tags a,b"\nmetric: loss\n'
        'log: "{run}/out.jsonl"\nadamw: {lr: 1e-4..1e-2}\n'
        "optimizers: [adamw]\ntrials: 2\nseeds: 3\n"
    )
    status, said = command_line(capsys, "run", "study.yaml", "--dry-run")
    words = [
        "command=train.py --lr {lr} --seed {seed} --n {steps} --out {run} --tags a,b",
        "metric=loss",
        "log={run}/out.jsonl",
        "adamw.lr=1e-4..1e-2",
    ]
    expected = command_line(capsys, "compare", *words, "optimizers=adamw", "trials=2", "seeds=3", "--dry-run")
    assert (status, said) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 2\n", 'names no study; expected a line such as study = "grokking"'),
        ('study = "grokking"\nseeds = \n', "study.toml is not TOML: Invalid value"),
        ('study = "grokking"\n\nseedz = 2\n', "study.toml, line 3: unknown setting 'seedz'; did you mean 'seeds'?"),
        ('study = "grokking"\n[muon]\nlr = -1\n', "study.toml, line 3: muon.lr=-1 is not valid"),
        ('study = "grokking"\n# more\nmuon.lr = -1\n', "study.toml, line 3: muon.lr=-1 is not valid"),
        ('study = "groking"\n', "study.toml: unknown study 'groking'; did you mean 'grokking'?"),
        ('study = "grokking"\ntasks = []\n', "tasks= has an empty value"),
        ('study = "grokking"\n[[tasks]]\nname = 1\n', "tasks is not a setting; expected a value or a list of values"),
        ('study = "compare"\n', "study.toml: nothing to train; give a task"),
    ],
)
def test_a_mistake_is_said_with_its_line(text, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(text)
    status, said = command_line(capsys, "run", "study.toml", "--dry-run")
    assert status == 2
    assert message in said.err
    assert list(tmp_path.iterdir()) == [tmp_path / "study.toml"]


def test_files_that_are_not_there_or_no_yaml(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*expected a study in TOML or YAML"):
        from_file.read(tmp_path / "study.toml")
    for text, message in (
        ("study: [", "is not YAML: while parsing"),
        ("- 1\n", "names no study"),
        ("\udcff", "is not"),
    ):
        (tmp_path / "study.yaml").write_text(text, errors="surrogateescape")
        with pytest.raises(UsageError, match=message if text[0] != "\udcff" else "cannot read"):
            from_file.read(tmp_path / "study.yaml")


def test_yaml_makes_no_objects_of_a_file(tmp_path):
    (tmp_path / "study.yaml").write_text("study: grokking\nseeds: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UsageError, match="seeds= has an empty value"):
        from_file.read(tmp_path / "study.yaml")
