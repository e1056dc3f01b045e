"""Results of feature jobs as a worker would write them, with losses invented: a study is at its end in no time."""

import math
from collections.abc import Callable

from muonlab.studies.features.config import Measure, Pretrain
from muonlab.studies.features.jobs import steps
from muonlab.study.study import Step

Losses = Callable[[Step, float, int], list[float | None]]  # (step, rate, seed) -> validation loss at every look
BEST = 0.01  # learning rate


def bowl(step: Step, rate: float, seed: int) -> list[float | None]:
    """Losses that fall from 5 to a level which is lowest at the best rate."""
    level = 1 + math.log10(rate / BEST) ** 2 + 0.01 * seed
    number = len(looks(step))
    return [5 + (level - 5) * look / (number - 1) for look in range(number)]


def looks(step: Step) -> tuple[int, ...]:
    """Steps after which a job that trains looks."""
    assert not isinstance(step.config, Measure)
    assert step.config.training is not None
    return step.config.training.steps


def result(step: Step, losses: Losses = bowl) -> dict:
    """What `steps` reads of the result.json of a job."""
    config = step.config
    if isinstance(config, Measure) or not config.rates:
        return {}
    members = []
    for rate in config.rates:
        for seed in config.seeds:
            seen = losses(step, rate, seed)
            member = {"rate": rate, "seed": seed, "validation_loss": seen}
            if isinstance(config, Pretrain):
                member["diverged_at"] = next((s for s, x in zip(looks(step), seen, strict=True) if x is None), None)
            members.append(member)
    return {"steps": list(looks(step)), "members": members}


def drive(study, losses: Losses = bowl, roles: tuple[str, ...] | None = None) -> tuple[list[Step], dict[str, dict]]:
    """Do all jobs of a study, or those of some roles, round by round; return them in their order, and their results."""
    done: list[Step] = []
    results: dict[str, dict] = {}
    for _ in range(100):
        now = [s for s in steps(study, results) if s.job.id not in results and (roles is None or s.role in roles)]
        if not now:
            return done, results
        results |= {step.job.id: result(step, losses) for step in now}
        done += now
    raise AssertionError("the study does not end")
