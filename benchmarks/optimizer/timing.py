"""Time one step of each contender, interleaved, so that what slows the machine slows all of them."""

import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from optimizer.contenders import TORCH, Contender, Hyper
from optimizer.machine import synchronize
from optimizer.parameters import as_matrix

WARM_UP = 2
LEAST_ROUNDS = 3
HYPER = Hyper()


class Stepper:
    """A contender with its own copy of the parameters.

    Some contenders overwrite their gradients or drop them, so before each step the gradients are filled again from
    `source`, outside the clock. All contenders share the memory of the gradients.
    """

    def __init__(self, contender: Contender, start: Sequence[Tensor], source: Sequence[Tensor], live: Sequence[Tensor]):
        shape = (lambda p: p.shape) if contender.takes_convolutions else (lambda p: as_matrix(p.shape))
        self.contender, self.source, self.live = contender, source, live
        self.parameters = [Parameter(p.clone().view(shape(p))) for p in start]
        begin = time.perf_counter()
        self.optimizer = contender.build(self.parameters, HYPER)
        self.build_seconds = time.perf_counter() - begin

    def prepare(self) -> None:
        torch._foreach_copy_(self.live, self.source)
        for p, g in zip(self.parameters, self.live, strict=True):
            p.grad = g.view(p.shape)
        self.contender.before_step()

    def step(self) -> tuple[float, float]:
        """Return the milliseconds of one step, on the clock and of the CPU."""
        self.prepare()
        device = str(self.source[0].device)
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        self.optimizer.step()
        synchronize(device)
        return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def least_agreement(stepper: Stepper, start: Sequence[Tensor], base: Sequence[Tensor]) -> float:
    """Return the lowest cosine, over the parameters, of what the first step did with what torch's did."""
    cosines = []
    for p, begin, other in zip(stepper.parameters, start, base, strict=True):
        change = p.detach().flatten() - begin.flatten()
        cosines.append(torch.nn.functional.cosine_similarity(change, (other.detach() - begin).flatten(), dim=0))
    return float(torch.stack(cosines).min())


def time_set(
    contenders: Sequence[Contender],
    start: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    repeats: int,
    seconds: float,
    seed: int,
    problems: dict[str, str],
    say: Callable[[str], None],
) -> dict[str, dict]:
    """Return, for each contender, its milliseconds in each round and the quartiles of them and of the ratio to torch.

    A round is one step of each contender, in a new random order. The ratio is that of two steps of the same round. The
    ratio of CPU times is given too: it suffers less from other work on the machine.

    Args:
        contenders: torch.optim.Muon must be among them.
        start: parameters, never changed.
        gradients: the same for all, never changed.
        repeats: rounds at most.
        seconds: time after which no further round begins, if there were three.
        seed: of the order.
        problems: receives what a contender died of; it is then left out.
        say: tells the progress.
    """
    live = [torch.empty_like(g) for g in gradients]
    steppers: dict[str, Stepper] = {}
    times: dict[str, list[tuple[float, float]]] = {}
    agreement: dict[str, float] = {}
    order = random.Random(seed)

    def attempt(name: str, action: Callable):
        try:
            return action()
        except Exception as error:  # a peer's failure is a result
            problems[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            steppers.pop(name, None)
            times.pop(name, None)

    for contender in sorted(contenders, key=lambda c: c is not TORCH):  # torch first: the others are compared with it
        name = contender.name
        made = attempt(name, lambda contender=contender: Stepper(contender, start, gradients, live))
        if made is None:
            continue
        steppers[name], times[name] = made, []
        say(f"  {name}: first steps")
        if attempt(name, made.step) is not None:
            base = steppers[TORCH.name].parameters if contender is not TORCH else made.parameters
            if contender is TORCH:
                after_torch = [p.detach().clone().view(s.shape) for p, s in zip(base, start, strict=True)]
            agreement[name] = least_agreement(made, start, after_torch)
            for _ in range(WARM_UP - 1):
                attempt(name, made.step)

    began, rounds = time.perf_counter(), 0
    while rounds < repeats and (rounds < LEAST_ROUNDS or time.perf_counter() - began < seconds):
        for name in order.sample(sorted(steppers), len(steppers)):
            both = attempt(name, steppers[name].step)
            if both is not None:
                times[name].append(both)
        rounds += 1

    pairs = {name: list(zip(own, times[TORCH.name], strict=True)) for name, own in times.items()}
    return {
        name: {
            "ms": quartiles([wall for wall, _ in own]),
            "ratio": quartiles([mine[0] / torchs[0] for mine, torchs in pairs[name]]),
            "cpu_ratio": quartiles([mine[1] / torchs[1] for mine, torchs in pairs[name]]),
            "least_cosine_of_first_step_with_torch": agreement[name],
            "times_ms": [round(wall, 4) for wall, _ in own],
            "cpu_times_ms": [round(cpu, 4) for _, cpu in own],
        }
        for name, own in times.items()
    }
