"""Write the tables of docs/settings.md from the described fields of the studies' configs.

python docs/tables.py            # --check says whether the page is up to date, and writes nothing
"""

import re
import sys
from importlib import import_module
from pathlib import Path

from muonlab.cli import DESCRIBED
from muonlab.study.described import as_markdown

PAGE = Path(__file__).parent / "settings.md"


def renewed(text: str) -> str:
    """Return the page with the tables of every study between its marks."""
    for study in DESCRIBED:
        tables = as_markdown(import_module(f"muonlab.studies.{study}.settings").sections())
        marks = re.compile(rf"(<!-- tables of {study} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = marks.sub(lambda found, tables=tables: f"{found[1]}\n{tables}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    new = renewed(old)
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif old != new:
        sys.exit(f"{PAGE} is out of date; run python docs/tables.py")
