"""The report as aligned text."""

from collections.abc import Sequence

from optimizer.accuracy import SHAPES, SPECTRA


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    justified = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (head, *rows)]
    return "\n".join("  ".join(row).rstrip() for row in justified)


def span(values: dict, digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['q1']:.{digits}f}-{values['q3']:.{digits}f})"


HEAD = (
    "contender",
    "ms (quartiles)",
    "ratio to torch (quartiles)",
    "CPU ratio",
    "launches",
    "GFLOP/s",
    "of peak",
    "extra memory",
    "state",
    "ready s",
    "least cosine",
)


def set_text(one: dict) -> str:
    rows = []
    for name, row in one["rows"].items():
        if "ms" not in row:
            rows.append((name, f"not run: {row['problem']}", *[""] * (len(HEAD) - 2)))
            continue
        seen = row.get("probe", {})
        known = "extra_share" in seen
        rows.append(
            (
                name,
                span(row["ms"], 2 if row["ms"]["median"] < 100 else 0),
                span(row["ratio"], 3),
                f"{row['cpu_ratio']['median']:.3f}",
                str(seen.get("launches") or "-"),
                f"{row['gflops']:.0f}",
                f"{row['share_of_peak']:.0%}",
                f"{seen['extra_share']:.2f}" if known else "-",
                f"{seen['state_share']:.2f}" if known else "-",
                f"{seen['first_step_seconds'] - seen['second_step_seconds']:.2f}" if known else "-",
                f"{row['least_cosine_of_first_step_with_torch']:.3f}",
            )
        )
    failed = [row for row in rows if row[1].startswith("not run")]
    text = aligned(HEAD, [row for row in rows if row not in failed])
    text += "".join(f"\n{row[0]}: {row[1]}" for row in failed)
    for name, row in one["rows"].items():
        if "problem" in row.get("probe", {}):
            text += f"\n{name}: launches and memory not seen: {row['probe']['problem']}"
    title = f"{one['title']}: {one['matrices']} matrices, {one['parameters'] / 1e6:.2f} M parameters"
    return f"{title}, {one['rounds']} rounds\n{text}"


def accuracy_cell(case: dict | None, cosine: str) -> str:
    return f"{case[cosine]:.4f} [{case['smallest']:.2f} {case['largest']:.2f}]" if case else "-"


def accuracy_text(table: list[dict]) -> str:
    seen = {(row["contender"], tuple(row["shape"]), row["spectrum"]): row for row in table}
    *full, half = SPECTRA
    rows = []
    for name in dict.fromkeys(row["contender"] for row in table):
        for shape in SHAPES:
            texts = [accuracy_cell(seen.get((name, shape, spectrum)), "cosine") for spectrum in full]
            deficient = seen.get((name, shape, half))
            whole = f"{deficient['cosine']:.4f}" if deficient else "-"
            rows.append((name, f"{shape[0]}x{shape[1]}", *texts, accuracy_cell(deficient, "cosine_in_range"), whole))
    return (
        "Cosine to the exact polar factor [smallest and largest singular value within the rank];\n"
        f"{half}: over the range alone, then with the rounding outside it counted\n"
        + aligned(("contender", "shape", *full, half, "all of it"), rows)
    )


LEGEND = """\
ratio: median of the ratios of two steps in the same round; CPU ratio: the same of CPU time, which other work on the
machine disturbs less. launches: {launches}
GFLOP/s: the products of torch's quintic loop (five steps of X X^T, A A, B X), whatever the contender computes, over the
time of the whole step; the peak is {peak:.0f} GFLOP/s in {dtype} (float32: {peak32:.0f}), measured here.
extra memory, state: bytes over those of the parameters; extra is the peak of the second step without parameters,
gradients and state (momentum), in a process of its own. ready: what making the optimizer and the first step take there
beyond the second step. least cosine: of the first step with torch's, over the parameters: 1 is the same update."""
LAUNCHES = {
    "cpu": "dispatched operations, without views and allocations; a foreach call counts once.",
    "cuda": "kernels and copies on the device, by torch.profiler.",
}


def report_text(report: dict) -> str:
    environment, settings = report["environment"], report["settings"]
    device = environment["device"] if settings["device"] != "cpu" else environment["hardware"]["cpu"]
    versions = ", ".join(
        f"{name} {environment['versions'][name]}" for name in ("torch", "timm", "pytorch_optimizer", "heavyball")
    )
    commit = f"{(environment['commit'] or 'unknown')[:9]}{' and changes' if environment['uncommitted_diff'] else ''}"
    parts = [
        f"One optimizer step on float32 parameters. {device}, {settings['threads']} thread(s), {environment['date']}\n"
        f"{versions}; muonlab {commit}"
    ]
    parts += [set_text(one) for one in report["sets"]]
    means, cpu_means = report["geometric_mean"]["ratio"], report["geometric_mean"]["cpu_ratio"]
    if len(report["sets"]) > 1:
        rows = [(name, f"{value:.3f}", f"{cpu_means[name]:.3f}") for name, value in means.items()]
        parts.append(aligned(("geometric mean over the sets", "ratio", "CPU ratio"), rows))
    if report["accuracy"]:
        problems = (f"\n{name}: not measured: {why}" for name, why in report["accuracy_problems"].items())
        parts.append(accuracy_text(report["accuracy"]) + "".join(problems))
    peaks = report["peak_gflops"]
    parts.append(
        LEGEND.format(
            launches=LAUNCHES[settings["device"].partition(":")[0]],
            peak=peaks[settings["ns_dtype"]],
            dtype=settings["ns_dtype"],
            peak32=peaks["float32"],
        )
    )
    about = [f"{name}: {one['about']}" for name, one in report["contenders"].items()]
    return "\n\n".join([*parts, "\n".join(about)])
