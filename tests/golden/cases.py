"""What the golden test reads and plans, and how what it finds is written down.

Numbers are kept as the CSV has them. Of texts, ids, names and answers are kept; prose is not, as it may be reworded.
"""

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golden.reading import Rows, analyse, identities, inspect_id, plan_ids

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "records"
RECORDED = {  # name of the expectations -> study.json, of records that hold their jobs
    str(path.parent.relative_to(RECORDS)).replace("/", "-"): path
    for path in sorted(RECORDS.glob("**/study.json"))
    if (path.parent / "jobs.zip").exists()
}
RUNS = tuple(sorted(path.name.split(".")[0] for path in (HERE / "runs").glob("*.tar.gz")))  # of the tiny presets
# Columns whose texts are ids, names of what is compared, or answers. Those of other columns are prose.
KEYS = re.compile(
    "job|cell|status|optimizer|rival|side|family|task|loss|weights|by|group|labels|seeds|flow|edge|inputs|margin|tap|"
    "corruption|series|first|second|in_verdict|stayed|nesterov|method|schedule|tried|rates|short|n|state|control|"
    "diverged"
)
PROSE = "..."
FILES = {"images": ["images.zip"], "text": ["text.txt"], "transfer_text": ["other.txt"], "examples": ["labelled.tsv"]}
PLANS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("grokking", preset, {}) for preset in ("tiny", "laptop", "paper")),
    *(("features", preset, {}) for preset in ("tiny", "laptop")),
    *(("features", preset, FILES) for preset in ("real", "paper")),
    *(("components", preset, {}) for preset in ("tiny", "laptop", "full")),
    ("grokking", "tiny", {"optimizers": ["muon", "adamw", "sgd"], "muon.lr": ["0.01", "0.02"], "seeds": ["25"]}),
    ("features", "tiny", {"optimizers": ["adamw", "sgd"], "families": ["vit"], "budget": ["20"]}),
    ("components", "tiny", {"depth": ["1"], "strengths": ["power"], "variations": ["none"]}),
)


def unpack(run: str, folder: Path) -> Path:
    """Write the folder of a tiny run, without weights, and return it."""
    with tarfile.open(HERE / "runs" / f"{run}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / run


def read(folder: Path) -> dict[str, Any]:
    """Return what a study's folder says: ids, answer, and tables by column."""
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))["study"]
    answer, tables = analyse(study, folder)
    return {
        "answer": answer,
        "ids": identities(folder),
        "tables": {name: _columns(rows) for name, rows in tables.items()},
    }


def _columns(rows: Rows) -> dict[str, list[float | str | None]]:
    identity = next((key for key in ("job", "cell") if rows and key in rows[0]), None)
    if identity:  # their order goes by a name, which is prose
        rows = sorted(rows, key=lambda row: row[identity])
    return {key: [_value(key, row[key]) for row in rows] for key in (rows[0] if rows else ())}


def _value(key: str, text: str) -> float | str | None:
    if key not in ("job", "cell"):
        try:
            return float(text) if text else None
        except ValueError:
            pass
    return text if KEYS.fullmatch(key) else PROSE


def plans(folder: Path) -> dict[str, Any]:
    """Return a command -> the ids of what it begins with; the current folder must be `folder`, which is empty."""
    for name in ("images.zip", "text.txt", "other.txt", "labelled.tsv"):
        (folder / name).write_bytes(b"")
    found: dict[str, Any] = {}
    for study, preset, settings in (*PLANS, *_recorded_plans()):
        words = [f"{key}={','.join(values)}" for key, values in settings.items()]
        found[" ".join([study, f"preset={preset}", *words])] = plan_ids(study, preset, settings)
    _save_weights(folder / "a.safetensors", 1.0)
    _save_weights(folder / "b.safetensors", 2.0)
    words = ["A=a.safetensors", "B=b.safetensors", "net=torch.nn:Flatten", "data=digits", "measure.examples=50"]
    return found | {" ".join(["inspect", *words]): [inspect_id(words)]}


def _recorded_plans() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in RECORDED.values():
        held = json.loads(path.read_text(encoding="utf-8"))
        # A plan of inspect reads the weights, which records do not hold; one of transfer names this Python's sources.
        if held["study"] not in ("inspect", "transfer"):
            for asked in held.get("requests", [held]):  # older files have one request, without a list
                yield held["study"], asked["preset"], asked["settings"]


def _save_weights(path: Path, value: float) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    number = {1.0: b"\x00\x00\x80?", 2.0: b"\x00\x00\x00@"}[value]
    path.write_bytes(len(header).to_bytes(8, "little") + header + number)


def expected(name: str) -> dict[str, Any]:
    """Return what was written down."""
    return json.loads(gzip.decompress((HERE / "expected" / f"{name}.json.gz").read_bytes()))


def write_down(name: str, found: dict[str, Any]) -> None:
    """Write an expectation, the same bytes for the same content."""
    path = HERE / "expected" / f"{name}.json.gz"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(found, separators=(",", ":"), allow_nan=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
