"""The settings of a study of a user's own that a command may change, as `muonlab settings FILE.py` prints them."""

from typing import Any

from muonlab.studies.compare.config import Training
from muonlab.studies.compare.plan import OPTIMIZERS
from muonlab.study import dotted, optimizers
from muonlab.study.described import EXECUTION, Sections, Setting, described, in_presets, rows

CHOSEN = """
seeds [a whole number, 1 to 1000]: final runs of each arm
search_seeds [a whole number, 1 to 1000]: runs of each learning rate of a search
extensions [a whole number, 0 to 20]: how many times a search may go on beyond the edge of its rates
target [a number]: validation loss whose first step is the quantity steps
"""


def sections(study: Any) -> Sections:
    """Return the settings by heading; study is what `compare_optimizers` returns."""
    arms: list[Setting] = []
    for label, name in study.labels.items():
        arms.append(Setting(f"{label}.lr", "numbers, two or more", "learning rates that a search begins with"))
        if dotted.is_dotted(name):
            rates = {f"{label}.{word}" for word in optimizers.RATES}
            own = [key for key in optimizers.keys(label, name, OPTIMIZERS) if key not in rates]
            arms += [Setting(key, "an argument", f"of {name}") for key in own]
        else:
            arms += described(OPTIMIZERS[name], f"{label}.", without=("name",))
    found = {
        "How it runs": EXECUTION,
        "What is compared": rows(CHOSEN),
        "Training": described(Training),
        "Optimizers": arms,
    }
    return in_presets(found, {"the file": study.texts})
