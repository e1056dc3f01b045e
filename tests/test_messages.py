"""Every setting that a message advises exists, and every value that the documentation lists is accepted."""

import re
from pathlib import Path

import pytest

import muonlab
from muonlab.cli import DESCRIBED
from muonlab.studies import PACKAGES, checkpoints, find, settings_of
from muonlab.studies.features.plan import plan as features
from muonlab.study.described import EXECUTION_KEYS
from muonlab.study.settings import UsageError

ROOT = Path(muonlab.__file__).parent
# Rooms whose messages are about settings; those of the optimizer advise arguments of its constructor.
ROOMS = ("cli.py", "data", "jobs", "study", "studies", "report")
ADVICE = re.compile(r"\b(?:[Gg]ive|or give|leave out|and give|needs) ([a-z_]+(?:\.[a-z_]+)?)=")
PLACEHOLDERS = {"key", "label"}  # KEY=VALUE in general


def known():
    described = (each for study in DESCRIBED for own in settings_of(study, DESCRIBED).values() for each in own)
    names = {*EXECUTION_KEYS, "preset", *checkpoints.KEYS, *(each.key for each in described)}
    for study in PACKAGES:
        names |= {*getattr(find(study), "KEYS", ())}
    # A reader names the field alone; features put the name of the data before it (`work.job._as_given`).
    return names | {name.partition(".")[2] for name in names}


def advised():
    for path in sorted(
        each for room in ROOMS for each in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"))
    ):
        for name in ADVICE.findall(re.sub(r'"\s*\n\s*f?"', "", path.read_text())):
            yield f"{path.relative_to(ROOT)}: {name}", name


# Bug: "give text_column=", which was no setting.
def test_every_setting_that_a_message_advises_exists():
    names, found = known(), list(advised())
    assert len(found) > 20
    assert [place for place, name in found if name not in names | PLACEHOLDERS] == []


def documented():
    """Yield the settings of the study of features with each value that the documentation lists."""
    for settings in settings_of("features", DESCRIBED).values():
        for each in settings:
            values = each.values
            if "by default all" in each.says:
                yield each.key, "all"
            listed = re.fullmatch(r"[\w-]+(?:, [\w-]+)*(?: or [\w-]+)?", values)
            if listed and not values.startswith("a ") and "or more" not in values:
                yield from ((each.key, value) for value in re.split(", | or ", values))


# Bug: text.limit=all, which the table of settings lists, was refused.
@pytest.mark.parametrize(("key", "value"), sorted({*documented()} - {("preset", "paper"), ("preset", "real")}))
def test_every_documented_value_is_accepted(key, value):
    if key in ("preset", *EXECUTION_KEYS):
        return
    families = key.partition(".")[0] if key.partition(".")[0] in ("cnn", "vit", "gpt") else "cnn,vit,gpt"
    given = {key: value} if key in ("families",) else {"families": families.split(","), key: value}
    if key.partition(".")[0] == "sgd":
        given["optimizers"] = ["muon", "sgd"]
    try:
        features("laptop", given)
    except UsageError as error:
        assert "has no effect" in str(error) or "not a multiple" in str(error), error  # noqa: PT017
