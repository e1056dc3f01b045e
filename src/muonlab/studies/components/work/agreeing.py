"""Agreement with the closed forms: W trained on the class means with ever smaller steps.

Letters: S members, K classes, d inputs.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from muonlab.rules import adamw, muon, sgd
from muonlab.studies.components.config import Agree, Net
from muonlab.studies.components.theory import flows
from muonlab.studies.components.theory.problem import Problem
from muonlab.studies.components.work.material import LOSSES, build_net, build_problem, means
from muonlab.train.by_rule import Treatment
from muonlab.train.jobs import Context
from muonlab.train.population import Loss, Population
from muonlab.train.seeds import streams

ROUNDING = 1e-9  # errors below it, relative ones, are those of float64 and of the solver of the closed form
SIGN_EPS = 1e-13  # AdamW's, far below the gradient's entries, about 1e-2

PLAIN = {"momentum": 0.0, "weight_decay": 0.0}
DESCENTS = {
    "gradient": (sgd, PLAIN),
    "spectral": (muon, {**PLAIN, "nesterov": False, "method": "exact", "adjust_lr_fn": "none"}),
    "sign": (adamw, {"beta1": 0.0, "beta2": 0.0, "eps": SIGN_EPS, "weight_decay": 0.0}),
}


def run(job: Agree, context: Context) -> dict[str, Any]:
    """Train one member per number of steps, in float64, and return what result.json holds.

    An order of convergence is null where an error is rounding or not finite, and its reason says which.
    """
    (seed,), device = streams(job.components.model_dump(mode="json"), (0,)), context.device
    problem = build_problem(job.components, seed)
    times = [job.time * (job.steps[0] / number if job.flow == "sign" else 1.0) for number in job.steps]
    sizes = [time / number for time, number in zip(times, job.steps, strict=True)]
    expected = [_expected(job, problem, time) for time in times]

    rule, hyper = DESCENTS[job.flow]
    treatment = Treatment(rule, {"lr": torch.tensor(sizes, dtype=torch.float64, device=device), **hyper})
    net, dtype = build_net(job.components, Net(depth=0)), torch.float64
    population = Population(
        net, _weighted(job, problem), {"linear.weight": treatment}, [seed] * len(sizes), dtype=dtype, device=device
    )
    inputs = means(problem).to(device).expand(len(sizes), -1, -1)  # (S, K, d)
    labels = torch.arange(problem.num_classes, device=device).expand(len(sizes), -1)
    context.clock.note(is_compiled=False, height=len(sizes))
    found: dict[int, Tensor] = {}
    for step in range(1, job.steps[-1] + 1):
        population.step(inputs, labels, step - 1)
        if step in job.steps:  # later steps of this member are of no interest
            found[step] = population.parameters["linear.weight"][job.steps.index(step)].cpu().clone()
            context.report({"step": step, "budget": job.steps[-1], "alive": len(sizes) - len(found)})
    context.clock.add(member_steps=len(sizes) * job.steps[-1], step=job.steps[-1])

    errors = [float((found[n] - W).norm() / W.norm()) for n, W in zip(job.steps, expected, strict=True)]
    orders, reasons = zip(*(_order(first, second) for first, second in pairwise(errors)), strict=True)
    return {
        "flow": job.flow,
        "loss": job.loss,
        "time": job.time,
        "steps": list(job.steps),
        "times": times,
        "sizes": sizes,
        "errors": [error if math.isfinite(error) else None for error in errors],
        "orders": list(orders),
        "reasons": list(reasons),
    }


def _expected(job: Agree, problem: Problem, time: float) -> Tensor:
    """Return W (K, d) of the closed form: exact, but for sign descent that of small logits."""
    if job.flow == "sign":
        return torch.from_numpy(flows.early(problem, "sign", time))
    gains = flows.LEARNT[job.loss](problem, job.flow, [time])
    return torch.from_numpy(flows.weights(problem, gains)[0])


def _weighted(job: Agree, problem: Problem) -> Loss:
    """Return the loss of the class means, of which a plain mean is that of the priors."""
    loss, shares = LOSSES[job.loss], torch.from_numpy(problem.priors) * problem.num_classes
    return lambda logits, labels: shares.to(labels.device)[labels] * loss(logits, labels)


def _order(first: float, second: float) -> tuple[float | None, str | None]:
    """Return log2 of the ratio of two errors, or why there is none."""
    if not (math.isfinite(first) and math.isfinite(second)):
        return None, "diverged"
    if min(first, second) <= ROUNDING:
        return None, "rounding"
    return math.log2(first / second), None
