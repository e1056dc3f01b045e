"""Tasks that `muonlab compare` has built in, by name: nets on embedded data, or on the user's own. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from platform import python_version

from muonlab.jobs.files import fingerprint
from muonlab.study.dotted import Dotted
from muonlab.study.settings import UsageError


@dataclass(frozen=True)
class Description:
    """A built-in task.

    Attributes:
        about: what is learnt, for people.
        embedded: data that it has without the user's, as `data` of the config of a job.
        reads: what data= may be; empty where it takes none.
        budget: steps in which a tuned AdamW learns it on the embedded data.
        batch: examples of a step.
    """

    about: str
    embedded: str
    reads: str
    budget: int
    batch: int

    @property
    def training(self) -> dict[str, int]:
        """How long it trains, as fields of the config."""
        return {"budget": self.budget, "batch": self.batch}


IMAGES = "a folder or .zip of class folders, or an .npz of images and labels"
TASKS = {
    "cnn": Description("a residual CNN on images", "digits", IMAGES, 150, 32),
    "vit": Description("a Vision Transformer on images", "digits", IMAGES, 200, 32),
    # Another Python has other sources.
    "gpt": Description("a character GPT on a text", f"sources of Python {python_version()}", "a file of text", 200, 16),
    "mlp": Description(
        "an MLP on a table", "friedman", "a .csv or .tsv that names its columns, the last of them the target", 500, 32
    ),
    "modular": Description("an MLP on addition modulo 31", "addition", "", 600, 128),
}
SUITES = {"pocket": tuple(TASKS)}


def data_of(name: str, data: str | None) -> Dotted:
    """Return the data of a built-in task, as the config of a job holds it: with the digest of a user's file.

    Raises:
        UsageError: a file that is not there, or data for a task that takes none.
    """
    own = TASKS[name]
    if data is None:
        return Dotted(name=own.embedded)
    if not own.reads:
        raise UsageError(f"data={data} has no effect: task={name} is {own.about}; leave data out")
    if not (path := Path(data).expanduser()).exists():
        raise UsageError(f"data={data}: there is no such file or folder; expected {own.reads}")
    return Dotted(name=data, sha256=fingerprint(path))
