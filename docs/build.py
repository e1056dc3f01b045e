"""Build the docs site, strictly, or show it.

python docs/build.py            # what make docs does: build/site; a broken link, a missing page, a bad docstring fail
python docs/build.py --serve    # what make docs-serve does: on http://localhost:8000, and again when a page changes

In the repository, pages link to files beside docs/: records, examples, source. A site has its own pages only. So all
that is linked is collected in build/pages: pages and pictures as they are, reports with their figures, and source files
as pages that show them. The README is the first page, and the page of the commands is written from the program itself.
zensical then builds what zensical.toml says.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from muonlab.cli import app

ROOT = Path(__file__).parents[1]
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
ZENSICAL = Path(sys.executable).with_name("zensical")
HOME = Path("README.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")  # what a link of Markdown leads to, without its anchor
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# Scripts, styles and pictures that a browser would fetch from another machine.
ELSEWHERE = re.compile(r"""<(?:script|img|link\s+rel=["']?stylesheet)[^>]*(?:src|href)=["']?(https?:)?//[^>]*>""")

# ------------------------------------------------------------------------------------- from the repository to the site


def page_of(source: Path) -> Path:
    """Return where a file of the repository lies in the site; both are relative to their roots."""
    if source == HOME:
        return Path("index.md")
    if source == Path("docs/README.md"):
        return Path("pages.md")
    if source.parts[0] == "docs":
        return Path(*source.parts[1:])
    return source.with_name(source.name + ".md") if source.suffix == ".py" else source


def linked(source: Path, target: str) -> Path:
    """Return the file of the repository that a link means: of a folder, its README.

    Raises:
        SystemExit: there is no such file, or it lies outside of the repository.
    """
    path = Path(os.path.normpath(source.parent / target))
    path = path / "README.md" if (ROOT / path).is_dir() else path
    if path.parts[0] == ".." or not (ROOT / path).is_file():
        sys.exit(f"{source} links to {target}, but there is no {path}; mend the link, or add that file")
    return path


def written(source: Path) -> tuple[str, list[Path]]:
    """Return a page with links that hold in the site, and the files that they lead to."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.suffix == ".py":
        return f"# {source}\n\n````python\n{text}````\n", []
    found: list[Path] = []

    def moved(link: re.Match) -> str:
        found.append(linked(source, link[1]))
        return os.path.relpath(page_of(found[-1]), page_of(source).parent)

    parts, end = [], 0
    for fence in FENCE.finditer(text):  # what looks like a link in code is none
        parts += [LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(moved, text[end:])]), found


def collect() -> dict[Path, str | Path]:
    """Return all files of the site: where each lies -> its text, or the file that is copied there."""
    own = sorted(path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".css"))
    waiting = [HOME, *(path.relative_to(ROOT) for path in own)]
    files: dict[Path, str | Path] = {
        Path("reference/commands.md"): app.generate_docs(output_format="markdown", include_hidden=False)
    }
    while waiting:
        source = waiting.pop()
        if page_of(source) in files:
            continue
        if source.suffix in (".md", ".py"):
            files[page_of(source)], found = written(source)
            waiting += found
        else:
            files[page_of(source)] = ROOT / source
        if source.name == "report.html":  # its figures and their data
            waiting += [path.relative_to(ROOT) for path in (ROOT / source.parent / "report").rglob("*.*")]
    return files


def leaves(navigation: str | dict | list) -> set[str]:
    """Return the pages of a navigation, which nests lists, and tables of title -> page."""
    if isinstance(navigation, str):
        return {navigation}
    return set().union(*map(leaves, navigation.values() if isinstance(navigation, dict) else navigation))


def astray() -> list[str]:
    """Return what the navigation names and is not there, and which pages of docs/ it does not name."""
    named = leaves(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    own = {str(page_of(path.relative_to(ROOT))) for path in (ROOT / "docs").rglob("*.md")}
    return [
        *(f"zensical.toml names {page}, which is not there" for page in sorted(named - set(map(str, collect())))),
        *(f"{page} is not in the nav of zensical.toml; add it" for page in sorted(own - named)),
    ]


def stage() -> None:
    """Write what has changed to build/pages, and remove what is no longer there."""
    files = collect()
    for path in PAGES.rglob("*"):
        if path.is_file() and path.relative_to(PAGES) not in files:
            path.unlink()
    for name, content in files.items():
        path = PAGES / name
        new = content.encode() if isinstance(content, str) else content.read_bytes()
        if not path.exists() or path.read_bytes() != new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(new)


# ---------------------------------------------------------------------------------------------------- build, and show


def build() -> None:
    """Build the site.

    Raises:
        SystemExit: zensical warned of something, a docstring is not understood, or a page needs another machine.
    """
    shutil.rmtree(SITE, ignore_errors=True)
    stage()
    command = [ZENSICAL, "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = done.stdout.partition("Traceback (most recent call last)")[0]
    print(said)
    faults = astray() + [line for line in said.splitlines() if line.startswith("griffe:")]
    faults += sorted(
        {f"a page loads {found[0]}" for page in SITE.rglob("*.html") for found in ELSEWHERE.finditer(page.read_text())}
    )
    if done.returncode or faults:
        sys.exit("\n".join(["The docs were not built: mend what is said above.", *faults]))


def serve() -> None:
    """Show the site until interrupted."""
    stage()
    server = subprocess.Popen([ZENSICAL, "serve"], cwd=ROOT)
    try:
        while server.poll() is None:
            time.sleep(2)
            try:
                stage()
            except SystemExit as fault:  # a link that is still being written
                print(fault)
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="show it, and build again what changes")
    shutil.rmtree(PAGES, ignore_errors=True)
    serve() if parser.parse_args().serve else build()
