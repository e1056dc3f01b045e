"""Tables as files: CSV, Parquet, LaTeX and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from muonlab.export.tables import Row, columns
from muonlab.jobs.optional import package


def as_csv(rows: Sequence[Row]) -> bytes:
    """Return rows as CSV, numbers in full; nothing stands for none, true and false are words."""
    found = columns(rows)
    writer = csv.writer(file := io.StringIO(), lineterminator="\n")
    writer.writerow(found)
    writer.writerows([_word(value) for value in row] for row in zip(*found.values(), strict=True))
    return file.getvalue().encode()


def _word(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def as_json(rows: Sequence[Row]) -> bytes:
    """Return rows as a JSON list of objects, all with the same keys."""
    found = columns(rows)
    objects = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    return (json.dumps(objects, indent=1, allow_nan=False) + "\n").encode()


def as_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as Parquet.

    Raises:
        StudyError: pyarrow is not installed.
    """
    arrow = package("pyarrow", "muonlab[export]", "Parquet")
    writer = package("pyarrow.parquet", "muonlab[export]", "Parquet")
    writer.write_table(arrow.table(columns(rows)), file := io.BytesIO())
    return file.getvalue()


# -- LaTeX -----------------------------------------------------------------------------------------

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "→": r"$\to$",
    "–": "--",
    "’": "'",
    "Δ": r"$\Delta$",
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", (rf"\textsuperscript{{{sign}}}" for sign in "0123456789-"), strict=True)),
}


def as_latex(rows: Sequence[Row]) -> bytes:
    r"""Return rows as a longtable with booktabs rules, for \input.

    A column that has one value throughout is a comment above the table: a page has no room for it.
    """
    found = columns(rows)
    fixed = {name: values[0] for name, values in found.items() if len(rows) > 1 and len(set(values)) == 1}
    varied = {name: values for name, values in found.items() if name not in fixed}
    if not varied:
        fixed, varied = {}, found
    comments = [f"% {name}: {str(value).splitlines()[0] if str(value) else ''}" for name, value in fixed.items()]
    kinds = "".join("l" if any(isinstance(value, str) for value in values) else "r" for values in varied.values())
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in zip(*varied.values(), strict=True)]
    head = [" & ".join(map(escaped, varied)) + r" \\", r"\midrule", r"\endhead"]
    table = [rf"\begin{{longtable}}{{{kinds or 'l'}}}", r"\toprule", *head, *lines, r"\bottomrule", r"\end{longtable}"]
    return "\n".join([r"% \usepackage{booktabs,longtable}", *comments, *table, ""]).encode()


def escaped(value: Any) -> str:
    r"""Return the LaTeX of a value: text as it reads, a float in four significant digits, nothing for none.

    Example:
        >>> escaped("50% of a_b"), escaped(1.5e-7), escaped(None)
        ('50\\% of a\\_b', '$1.5 \\times 10^{-7}$', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        mantissa, e, exponent = f"{value:.4g}".partition("e")
        return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if e else f"${mantissa}$"
    text = str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda sign: SPECIAL[sign[0]], text)


FORMATS: dict[str, tuple[str, Callable[[Sequence[Row]], bytes]]] = {
    "csv": ("csv", as_csv),
    "parquet": ("parquet", as_parquet),
    "latex": ("tex", as_latex),
    "json": ("json", as_json),
}
