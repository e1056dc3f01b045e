"""The verb `muonlab export`."""

from pathlib import Path


def export(folder: Path, *, to: str = "csv", out: Path | None = None) -> int:
    """Write a study's runs, evaluations, comparisons and figures for other tools.

    For example:

        muonlab export runs/grokking --to csv,parquet,latex,json

        muonlab export runs/grokking --to svg,png --out figures

        muonlab export runs/grokking --to tensorboard

    Parameters
    ----------
    folder
        The study's folder, or a file of JSON lines with a step each (muonlab.measure.Watch).
    to
        csv, parquet, latex or json for the tables; svg or png for the figures; tensorboard, wandb (offline) or trackio
        for the curves. Several with commas.
    out
        Where the files go (default: export/ in the study's folder, or beside the file).
    """
    from muonlab.export import files

    for path in files.write(folder, to.split(","), out):
        print(path)
    return 0
