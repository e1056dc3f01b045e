"""Results of a comparison without any training."""

import json
from pathlib import Path

from muonlab.jobs import store
from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.jobs import steps


def invented(asked, loss):
    """Results of all jobs without any training: loss(label, point, seed) at the end, None where it diverged."""
    found = {}
    while todo := [step for step in steps(asked, found) if step.job.id not in found]:
        for step in todo:
            members, training = [], step.config.training
            for k, point in enumerate(step.config.points):
                for seed in step.config.seeds:
                    last = loss(step.arm, point, seed)
                    curve = [2.0, *[1.0 if last is None else (1 + last) / 2] * (len(training.steps) - 2), last]
                    members.append(
                        {
                            "point": k,
                            "seed": seed,
                            "diverged_at": training.budget if last is None else None,
                            **dict.fromkeys(("validation_loss", "train_loss"), curve),
                            **dict.fromkeys(("validation_accuracy", "train_accuracy"), [None] * len(curve)),
                            "test_loss": None,
                            "test_accuracy": None,
                        }
                    )
            found[step.job.id] = {
                "chance": None,
                "num_parameters": 9,
                "why_sequential": None,
                "steps": list(training.steps),
                "points": list(step.config.points),
                "members": members,
            }
    return found


def reported(asked, loss):
    """Return the findings of a study whose jobs have such results, from a folder."""
    store.create(Path("out"), "compare", asked.preset, asked.settings, asked.model_dump(mode="json"))
    for name, result in invented(asked, loss).items():
        Path("out", name).mkdir()
        Path("out", name, "config.json").write_text("{}")
        Path("out", name, "result.json").write_text(json.dumps(result))
    return analyse(Path("out"))


def judged(asked, loss):
    """Return the verdict of such a study."""
    return reported(asked, loss).verdict
