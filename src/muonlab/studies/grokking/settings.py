"""The settings of a study of grokking, as `muonlab settings grokking` prints them."""

from typing import Any

from muonlab.studies.grokking.cells import LOSSES, PRESETS, STUDY
from muonlab.studies.grokking.choices import OPTIMIZERS
from muonlab.studies.grokking.config import TASKS, MLPConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.study.described import Sections, described, execution, in_presets, of_each, rows

MEANT_FOR = {
    "tiny": "seconds, for tests",
    "laptop": "seven tasks, three losses, Muon and AdamW, about ten minutes on two cores",
    "paper": "all tasks and losses at the sizes of the cited code, not run yet: see --dry-run first",
}
CHOSEN = rows(
    f"""
tasks [{", ".join(TASKS)}]: gcd is of a and b modulo a prime; or a task of your own, path/file.py:function or
    LABEL=package.module:function. task is another word for it
net [transformer, mlp] (transformer): mlp reads one-hot encoded tokens; or a net of your own, path/file.py:function
losses [{", ".join(LOSSES)}]: softmax variants. loss is another word for it
optimizers [{", ".join(OPTIMIZERS)}]: or any of torch's protocol, lion=lion_pytorch:Lion; variants of one with labels,
    a=muon,b=muon. Muon, else the first, is compared with each of the others
seeds [a whole number, or seeds]: one number: that many runs of each condition; several, as 7,11,13: the seeds
    themselves. Runs that are done are never computed again when there are to be more or fewer
search_seeds [a whole number, at least 0] (0): runs of each setting of an optimizer with several, with seeds of their
    own, from 1000 on; only the best over all tasks and losses is then run with those that are judged. 0: all are, and
    the best is chosen by the very runs that are judged
control_seeds [a whole number, at least 0]: runs on random labels for each task and optimizer, with the first of the
    losses and of each optimizer's axes
"""
)


def sections(study: Any = None) -> Sections:
    """Return the settings by heading."""
    found = {
        "Where it starts and how it runs": execution(STUDY, MEANT_FOR),
        "What is compared": CHOSEN,
        "Task": described(TaskConfig, without=("name", "call")),
        "Net": described(NetConfig, without=("kind",)),
        "Net, of net=mlp": described(MLPConfig, without=("kind",)),
        "Protocol": described(ProtocolConfig),
        "Optimizers": of_each(OPTIMIZERS, "name"),
    }
    return in_presets(found, PRESETS)
