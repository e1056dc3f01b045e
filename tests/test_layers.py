"""Who may import whom. An arrow that is not here is an error, wherever in a file its import stands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import muonlab

ROOT = Path(muonlab.__file__).parent
ROOMS = {
    "rules": set(),
    "optim": {"rules"},
    "testing": set(),
    "nets": set(),
    "losses": set(),
    "data": {"measure"},
    "measure": set(),
    "stats": set(),
    "jobs": set(),
    "report": {"jobs", "stats"},
    "train": {"rules", "optim", "nets", "jobs"},
    "study": {"jobs", "stats", "report"},
    "studies": {"data", "stats", "jobs", "report", "study", "measure"},
}
ROOMS["export"] = {"jobs", "report", "study", "studies"}
# What a worker of a study does, with torch.
ROOMS["studies/work"] = ROOMS["studies"] | ROOMS["train"] | {"train", "losses", "measure"}
ROOMS["cli"] = set(ROOMS)
ROOMS["__main__"] = {"cli"}
PACKAGES = {
    "rules": {"torch"},
    "optim": {"torch"},
    "testing": {"torch"},
    "nets": {"torch"},
    "losses": {"torch"},
    "data": {"torch"},
    "measure": {"torch"},
    "stats": {"numpy", "scipy"},
    "jobs": {"pydantic"},
    "train": {"torch", "safetensors"},
    "study": {"pydantic", "numpy"},
    "studies": {"pydantic", "numpy", "scipy"},
    "studies/work": {"torch", "safetensors", "numpy", "pydantic"},
    "report": {"rich", "numpy", "matplotlib", "jinja2", "markupsafe", "PIL"},
    "export": set(),
    "cli": {"cyclopts", "torch"},
    "__main__": set(),
}
# What a room may ask for by a function `package`, which says what to install where it is missing.
OPTIONAL = {
    "study": {"yaml"},
    "data": {"numpy", "PIL", "pyarrow", "sklearn", "tokenizers"},
    "studies/work": {"transformers"},
    "export": {"pyarrow", "torch", "wandb", "trackio"},  # torch.utils.tensorboard
}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "muonlab":
                found |= {f"muonlab.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return found


def packages_asked_for(path: Path) -> set[str]:
    """Return the packages that a file asks for by name, with package("name.of.a.module", ...)."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "package"]
    return {str(name.value).split(".")[0] for name in names if isinstance(name, ast.Constant)}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "studies/work" if parts[0] == "studies" and "work" in parts else parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def forbidden(path: Path) -> Iterator[str]:
    """Yield what a file imports although its room may not."""
    room = room_of(path)
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "muonlab":
            if rest[0] not in ROOMS[room] | {room.split("/")[0], "__version__"}:
                yield f"{room} may not import {rest[0]} ({path})"
        elif package not in sys.stdlib_module_names and package not in PACKAGES[room]:
            yield f"{room} may not import {package} ({path})"


def test_a_file_imports_only_what_its_room_may():
    assert [message for path in FILES for message in forbidden(path)] == []


def test_a_room_asks_only_for_the_packages_it_may():
    asked: dict[str, set[str]] = {}
    for path in FILES:
        if found := packages_asked_for(path):
            asked.setdefault(room_of(path), set()).update(found)
    assert asked == OPTIONAL


def test_every_room_is_known_and_used():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_no_source_file_is_longer_than_500_lines():
    assert [str(path) for path in FILES if len(path.read_text().splitlines()) > 500] == []


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import muonlab", ["numpy", "scipy", "pydantic", "matplotlib", "rich", "cyclopts"]),
        ("import muonlab.rules, muonlab.losses, muonlab.nets.transformer", ["pydantic", "scipy", "matplotlib"]),
        ("import muonlab.cli", ["torch", "scipy", "matplotlib"]),
        (
            "import muonlab.studies.grokking, muonlab.studies.components, muonlab.report.page, muonlab.report.terminal",
            ["torch"],
        ),
        ("import muonlab.studies.checkpoints, muonlab.studies.compare", ["torch", "matplotlib"]),
        ("import muonlab.jobs.local, muonlab.report.terminal", ["torch", "scipy", "matplotlib"]),
        (
            "import muonlab.data.images, muonlab.data.text, muonlab.optim.sharding",
            ["PIL", "sklearn", "tokenizers", "pydoc_data", "torch.distributed.tensor"],
        ),
    ],
)
def test_an_import_loads_no_more_than_it_says(statement, absent):
    loaded = f"{statement}\nimport sys\nprint([name for name in {absent} if name in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", loaded],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT.parent)},
    )
    assert output.stdout.strip() == "[]"
