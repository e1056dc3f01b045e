"""Put the table of records/engine into docs/performance.md, between its two marks; --check says whether it is there."""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "records" / "engine" / "engine.json"
BEGIN, END = "<!-- benchmarks/engine_table.py writes this -->\n", "<!-- until here -->\n"
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}


def table(result: dict, threads: int = 1) -> str:
    """Return the ratios to the plain loop as Markdown, one line for each net and optimizer."""
    rows = [row for row in result["table"] if row["threads"] == threads]
    columns = [
        (engine, count)
        for engine in ("eager", "compiled")
        for count in sorted({row["members"] for row in rows if row["engine"] == engine})
    ]
    lines = [
        "| | plain loop | " + " | ".join(f"{engine}, S = {count}" for engine, count in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for depth in sorted({row["depth"] for row in rows}):
        for optimizer, name in OPTIMIZERS.items():
            found = {
                (row["engine"], row["members"]): row
                for row in rows
                if (row["depth"], row["optimizer"]) == (depth, optimizer)
            }
            rate = found["plain", 1]["member_steps_per_second"]
            cells = [
                "{:.1f} ({:.1f}-{:.1f})".format(row["ratio_to_plain"], *row["ratio_quartiles"])
                for row in (found[column] for column in columns)
            ]
            layers = "1 layer" if depth == 1 else f"{depth} layers"
            lines.append(f"| {layers}, {name} | 1 ({rate:.0f} steps/s) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_table(page: str, result: dict) -> str:
    """Return the page with the table between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table(result) + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the table is an old one")
    options = parser.parse_args()
    page = ROOT / "docs" / "performance.md"
    old = page.read_text()
    new = with_table(old, json.loads(RECORD.read_text()))
    if options.check:
        sys.exit(
            old != new
            and "docs/performance.md has another table than records/engine; run python benchmarks/engine_table.py"
        )
    page.write_text(new)


if __name__ == "__main__":
    main()
