"""The table of records/pocket from the report of a suite, and a copy of the report without its jobs.

python benchmarks/pocket.py runs/compare-pocket                          # the table in Markdown
python benchmarks/pocket.py runs/compare-pocket --save records/pocket    # and study.json, report.html, report/
"""

import argparse
import csv
import shutil
from pathlib import Path


def rows(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table of the report by optimizer."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["optimizer"]: row for row in csv.DictReader(file)}


def table(report: Path) -> str:
    """Return a row for each optimizer: final losses with outcomes, counts, and how fast it is."""
    names = ("losses", "outcomes", "times", "standings")
    losses, outcomes, times, standings = (rows(report / f"{name}.csv") for name in names)
    names = [
        key for key in next(iter(losses.values())) if key != "optimizer" and not key.endswith(("_lower", "_upper"))
    ]
    counts = ("better", "worse", "equal", "undecided", "interval_below", "interval_above")
    lines = [
        [
            "optimizer",
            "ratio to AdamW [95 %]",
            "p, Holm",
            *names,
            *(each.replace("_", " ") for each in counts),
            "within 1.25x",
            "score",
        ]
    ]
    lines.append(["---"] * len(lines[0]))
    for optimizer in sorted(losses, key=lambda each: -float(times[each]["score"])):
        own = outcomes.get(optimizer, {})
        cells = []
        for name in names:
            loss = losses[optimizer][name]
            half = (float(losses[optimizer][f"{name}_upper"]) - float(loss)) if loss else 0.0
            cells.append(f"{float(loss):.3f} ± {half:.3f}" if loss else "diverged")
        numbers = [own.get(f"num_{each}", "") for each in counts]
        fast = [f"{float(times[optimizer]['within_1.25']):.0%}", f"{float(times[optimizer]['score']):.2f}"]
        over = standings.get(optimizer)
        ratio = (
            ["{:.2f} [{:.2f}, {:.2f}]".format(*(float(over[f"ratio{key}"]) for key in ("", "_lower", "_upper")))]
            if over
            else [""]
        )
        p = [f"{float(over['p_holm']):.2f}"] if over else [""]
        lines.append([optimizer, *ratio, *p, *cells, *numbers, *fast])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    print(table(given.study / "report"))
    if given.save:
        given.save.mkdir(parents=True, exist_ok=True)
        for name in ("study.json", "report.html"):
            shutil.copy(given.study / name, given.save)
        shutil.copytree(given.study / "report", given.save / "report", dirs_exist_ok=True)


if __name__ == "__main__":
    main()
