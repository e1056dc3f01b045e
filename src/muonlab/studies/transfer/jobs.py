"""The jobs of a study of transfer, as far as its results tell: searches, the narrow net's rate, coordinate checks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from muonlab.studies.compare.jobs import by_rate, scores
from muonlab.studies.transfer.plan import RESULTS_VERSION, Check, Net, Train, TransferStudy
from muonlab.studies.transfer.shift import chosen_by_others
from muonlab.study import search
from muonlab.study.folder import Results, make_job
from muonlab.study.search import Policy, Score
from muonlab.study.study import Arm, Step

WORK = "muonlab.studies.transfer.work.job"
POLICY = Policy()
ORDER = ("search", "kept", "check")
# Seconds of one core, about: of a job, of a step of a run, and FLOPs of a second in its products.
COST_JOB, COST_STEP, FLOPS = 3.0, 2e-3, 1.5e10
CONTEXT, VOCABULARY = 32, 100  # tokens of a text, and about the characters of one


def steps(
    asked: TransferStudy, results: Results, version: int = RESULTS_VERSION, *, is_outline: bool = False
) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run.

    An outline has the checks, too, whose rate follows from a search; it stands for the middle one there.
    """
    found = [step for arm in asked.arms for step in _of_arm(asked, results, version, arm, is_outline=is_outline)]
    return sorted(found, key=lambda step: ORDER.index(step.role))


def _of_arm(asked: TransferStudy, results: Results, version: int, arm: Arm, *, is_outline: bool) -> Iterator[Step]:
    def read(step: Step) -> Mapping[float, Score] | None:
        result = results.get(step.job.id)
        return None if result is None else scores(result)

    grid, known = asked.searches[arm.label], dict[int, Mapping[float, Score]]()
    tried: dict[int, list[Step]] = {}
    for net in asked.nets:

        def make(rates: tuple[float, ...], extension: int, net: Net = net) -> Step:
            return _train(asked, version, arm, net, "search", rates, extension)

        tried[net.width], own = search.run(grid, POLICY, make, read)
        yield from tried[net.width]
        if own is not None:
            known[net.width] = own
    narrow, wide = asked.nets[0], asked.nets[-1]
    rate = search.best(known[narrow.width], POLICY) if narrow.width in known else None
    if narrow.width in known and wide.width in known:
        losses = by_rate(results[step.job.id] for step in tried[narrow.width])
        kept = sorted({own for own in chosen_by_others(losses) if own is not None} - {*known[wide.width]})
        if kept:
            yield _train(asked, version, arm, wide, "kept", tuple(kept), 0)
    if is_outline:
        rate = grid.rates[len(grid.rates) // 2]
    if rate is not None and asked.check_steps:
        yield from (_check(asked, version, arm, net, rate) for net in asked.nets)


def _train(
    asked: TransferStudy, version: int, arm: Arm, net: Net, role: str, rates: Sequence[float], extension: int
) -> Step:
    config = Train(
        results_version=version,
        trained=net,
        training=asked.training,
        optimizer=arm.optimizer,
        points=tuple({"lr": rate} for rate in rates),
        seeds=tuple(range(asked.seeds)),
    )
    cost = COST_JOB + seconds(net, arm.optimizer, asked.training.batch) * asked.training.budget * len(
        config.points
    ) * len(config.seeds)
    words = {"search": "rates beyond the edge" if extension else "search", "kept": "the narrowest net’s best rate"}
    return _step(f"{arm.name}, {net.name}: {words[role]}", "run", config, cost, arm, net, role, extension)


def _check(asked: TransferStudy, version: int, arm: Arm, net: Net, rate: float) -> Step:
    config = Check(
        results_version=version,
        trained=net,
        optimizer=arm.optimizer,
        batch=asked.training.batch,
        rate=rate,
        seeds=tuple(range(asked.seeds)),
        steps=asked.check_steps,
    )
    cost = COST_JOB + 2 * seconds(net, arm.optimizer, config.batch) * config.steps * len(config.seeds)
    return _step(f"{arm.name}, {net.name}: coordinate check", "coordinates", config, cost, arm, net, "check")


def _step(name: str, target: str, config: Any, cost: float, arm: Arm, net: Net, role: str, extension: int = 0) -> Step:
    job = make_job(name, f"{WORK}:{target}", config, cost, case=net.name, arm=arm.label, role=role)
    return Step(job, config, role, net, arm.label, extension=extension)


def seconds(net: Net, optimizer: Any, batch: int) -> float:
    """Return about the seconds of a step of one run: of its gradient, and of Muon's orthogonalisation."""
    parameters = 12 * net.depth * net.width**2 + 2 * VOCABULARY * net.width
    products = 6 * parameters * batch * CONTEXT
    if optimizer.name == "muon":
        products += 300 * net.depth * net.width**3  # five iterations of three products, of six matrices
    return COST_STEP + products / FLOPS
