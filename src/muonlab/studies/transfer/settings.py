"""The settings of a study of transfer, as `muonlab settings transfer` prints them."""

from typing import Any

from muonlab.studies.compare.config import Training
from muonlab.studies.transfer.plan import OPTIMIZERS, PRESETS, RULES, STUDY, Net
from muonlab.study.described import Sections, described, execution, in_presets, of_each, rows

MEANT_FOR = {"tiny": "seconds, for tests", "laptop": "about twenty minutes of one core"}
CHOSEN = f"""
rules [{", ".join(RULES)}]: adjust_lr_fn of MuonAdamW, and AdamW alone as the reference; a claim for each
widths [whole numbers, two or more]: of the nets
text [a file of text] (sources of Python’s standard library): what is learnt, by characters
seeds [a whole number, 1 to 1000]: runs of each rate; below 3 nothing is decided
tolerance [a number above 0]: octaves per doubling of the width by which the best rate may move and still transfer
check_steps [a whole number]: steps of the coordinate check; 0 leaves it out
extensions [a whole number, 0 to 20]: how many times a search goes on by one rate beyond an edge of its grid
"""


def sections(study: Any = None) -> Sections:
    """Return the settings by heading."""
    rates = "\n".join(f"{rule}.rates [numbers, three or more]: learning rates of the first grid" for rule in RULES)
    found = {
        "Where it starts and how it runs": execution(STUDY, MEANT_FOR),
        "What is compared": rows(CHOSEN + rates),
        "Net and training": (*described(Net, without=("data", "width")), *described(Training)),
        "Optimizers": [each for each in of_each(OPTIMIZERS, "name") if not each.key.endswith(".adjust_lr_fn")],
    }
    return in_presets(found, PRESETS)
