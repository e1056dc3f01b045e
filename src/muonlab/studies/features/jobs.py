"""The jobs of a study of features, as far as its results tell: searches, final runs, measures, transfer.

Which jobs can run follows from what was asked and from the results that are there, and from nothing else: so a study
that was stopped goes on where it stood.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from muonlab.report.findings import as_text
from muonlab.studies.features import config as schema
from muonlab.studies.features.config import RESULTS_VERSION, Family, Measure, Pretrain, Rates, Seeds, State, Transfer
from muonlab.studies.features.matching import ahead, matching
from muonlab.studies.features.plan import FamilyPlan, FeatureStudy
from muonlab.study import search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom, differing, settings_of
from muonlab.study.search import SEARCH_FROM, Policy, Scores, last_losses, mean_scores
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.features.work.job:run"
TRIAL = "muonlab.studies.features.work.job:check"
FINAL, UNTRAINED, LINEAR, NEW = "final", "untrained", "linear", "none"
ORDER = ("search", "final", "match", "transfer search", "measure", "match measure", "transfer", "match transfer")
POLICY = Policy()  # one rate beyond an edge at a time, however little better it is
JobConfig = Pretrain | Measure | Transfer


def trials(study: FeatureStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that files or nets do not fit, one per family."""
    own = {
        f"{arm.label}{number or ''}": each.model_dump(mode="json")
        for arm in study.arms
        for number, each in enumerate(study.tried(arm))
        if isinstance(each, Custom)
    }
    exact = [key.partition(".")[2] for key in study.settings if key.startswith(("images.", "text."))]
    return [
        (
            TRIAL,
            {"family": plan.family.model_dump(mode="json"), "tasks": list(plan.tasks), "optimizers": own}
            | {"exact": exact},
        )
        for plan in study.families
    ]


def steps(study: FeatureStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run.

    Args:
        study: what is asked.
        results: id -> result of every job that is done.
        version: results version of the jobs; another one only to read what an older muonlab has computed.
    """
    found = [step for plan in study.families for step in _FamilySteps(study, plan, results, version).all()]
    return sorted(found, key=lambda step: ORDER.index(step.role))


def outline(study: FeatureStudy) -> list[tuple[str, float]]:
    """Return names and costs of all jobs, if no run diverges and no search goes on beyond its first grid or budget."""
    grids = {label: each.model_copy(update={"extensions": 0}) for label, each in study.searches.items()}
    asked, results = study.model_copy(update={"searches": grids}), {}
    while new := [step for step in steps(asked, results) if step.job.id not in results]:
        results |= {step.job.id: _imagined(step, study.arms[0].label) for step in new}
    return [(step.job.name, step.job.cost) for step in steps(asked, results)]


def _imagined(step: Step, first: str) -> dict[str, Any]:
    """Return what `steps` reads of a result: the first arm ends lower, and in its first shorter budget as others do."""
    config = step.config
    if isinstance(config, Measure) or config.training is None:
        return {}
    at = config.training.steps
    loss = 1.0 if step.arm == first and step.role != "match" else 2.0
    whole = {"validation_loss": [loss] * len(at), "diverged_at": None}
    return {"steps": at, "members": [{"rate": r, "seed": s, **whole} for r in config.rates for s in config.seeds]}


class _FamilySteps:
    """The jobs of one family. Final runs are in blocks of seeds, and so is what is done with their weights."""

    def __init__(self, study: FeatureStudy, plan: FamilyPlan, results: Results, version: int):
        self._study, self._plan, self._results, self._version = study, plan, results, version
        self._every = tuple(range(study.seeds))
        sizes = {len({member["seed"] for member in result.get("members", ())}) for result in results.values()}
        self._sizes = sorted(sizes - {0}, reverse=True)  # of the blocks that may be done

    def all(self) -> Iterator[Step]:
        """Yield every job of the family that is done or can be done."""
        finals: dict[str, list[Step]] = {}
        is_searched = True
        for arm in self._study.arms:
            searched, best = self._searched(arm, "search", partial(self._pretrain, arm, "search", self._tried))
            yield from searched
            is_searched &= all(step.job.id in self._results for step in searched)
            if best is not None:
                optimizer, rate = best
                final = partial(self._pretrain, arm, "final", rates=(rate,), optimizer=optimizer)
                finals[arm.label] = list(self._in_blocks(final))
                yield from finals[arm.label]
        done = {a: blocks for a, blocks in finals.items() if all(each.job.id in self._results for each in blocks)}
        # The states of each depend on the runs of all. Where every rate or run of one diverged, the others go on.
        if is_searched and len(done) == len(finals):
            runs = {a: [m for each in blocks for m in self._members(each)] for a, blocks in done.items()}
            yield from (step for blocks in done.values() for step in self._measured(blocks, runs))
            if self._study.matched == "schedules":
                first, *rivals = self._study.arms
                yield from (step for rival in rivals for step in self._matches(done, (first, rival)))
        for task in self._plan.tasks:
            for blocks in (*done.values(), None):
                for arm in self._study.arms:
                    yield from self._fine_tuned(task, blocks, arm)

    # -- training, and the search for its rate -----------------------------------------------------

    @property
    def _tried(self) -> tuple[int, ...]:
        return tuple(range(SEARCH_FROM, SEARCH_FROM + self._study.search_seeds))

    def _searched(self, arm: Arm, role: str, make: Callable[..., Step]) -> tuple[list[Step], tuple[Any, float] | None]:
        """Return the jobs of a search so far, and the best settings with their best rate once all are known."""

        def read(step: Step) -> Scores | None:
            result = self._results.get(step.job.id)
            return None if result is None else mean_scores(last_losses([result], best=role == "transfer search"))

        found, scores = [], []
        for optimizer in self._study.tried(arm):
            own = self._study.searches[arm.label]
            steps, known = search.run(own, POLICY, partial(_with_rates, make, optimizer), read)
            found += steps
            scores.append((optimizer, known))
        return found, chosen(scores)

    def _in_blocks(self, make: Callable[[Seeds], Step]) -> Iterator[Step]:
        """Yield a job per block of seeds: one that is done stays, whatever number of seeds it was asked with."""
        rest = self._every
        while rest:
            whole = make(rest)
            tried = (whole, *(make(rest[:size]) for size in self._sizes if size < len(rest)))
            block = next((step for step in tried if step.job.id in self._results), whole)
            yield block
            rest = rest[len(block.config.seeds) :]

    def _pretrain(
        self,
        arm: Arm,
        role: str,
        seeds: Seeds,
        rates: Rates,
        *,
        optimizer: Any,
        budget: int | None = None,
        rival: str = "",
    ) -> Step:
        training = self._plan.training
        config = Pretrain(
            family=self._plan.family,
            optimizer=optimizer,
            training=training if budget is None else training.model_copy(update={"budget": budget}),
            rates=rates,
            seeds=seeds,
            keep=role != "search",
        )
        words = {"search": "search", "final": "final runs"}.get(role) or f"{budget} steps to meet {self._name(rival)}"
        return self._step(config, role, arm.label, f"{arm.name}{self._own(arm, optimizer)}, {words}", rival)

    def _matches(self, finals: Mapping[str, Sequence[Step]], arms: tuple[Arm, Arm]) -> Iterator[Step]:
        """Yield the search for a budget at which the one of two that ends lower ends where the other does."""
        if not all(arm.label in finals for arm in arms):
            return
        runs = {arm.label: [m for block in finals[arm.label] for m in self._members(block)] for arm in arms}
        leads = ahead(*runs.values())
        if leads is None:
            return
        arm, other = arms if leads else arms[::-1]
        final = finals[arm.label][0].config
        at, shorter = self._results[finals[arm.label][0].job.id]["steps"], {}

        def blocks_of(budget: int) -> list[Step]:
            same = {"rates": final.rates, "optimizer": final.optimizer}
            made = partial(self._pretrain, arm, "match", budget=budget, rival=other.label, **same)
            return list(self._in_blocks(made))

        while budget := matching(runs[arm.label], runs[other.label], at, shorter).next:
            yield from (blocks := blocks_of(budget))
            if not all(block.job.id in self._results for block in blocks):
                return
            shorter[budget] = [m for block in blocks for m in self._results[block.job.id]["members"]]
        best = matching(runs[arm.label], runs[other.label], at, shorter).best
        if best in shorter:
            yield from self._measured_at_end(blocks_of(best), other)

    def _measured_at_end(self, blocks: Sequence[Step], other: Arm) -> Iterator[Step]:
        """Yield the measures of runs that end where another arm's do, and their linear probes on another task."""
        for block in blocks:
            end, arm = self._end(block), block.arm
            if end is None:
                continue
            states = (end.model_copy(update={"name": completed(other.label)}),)
            shared = {"family": self._plan.family, "weights": block.job.id, "seeds": block.config.seeds}
            shared |= {"measuring": self._plan.measuring, "states": states}
            where = f"{self._name(arm)} that meets {other.name}"
            linear = Transfer(**shared, task="classes", mode="linear", is_final=True)
            yield self._step(Measure(**shared, looks=()), "match measure", arm, f"{where}, measures", other.label)
            yield self._step(linear, "match transfer", arm, f"{where}, linear probe on classes", other.label)

    # -- what is done with the weights -------------------------------------------------------------

    def _members(self, block: Step) -> list[dict[str, Any]]:
        """Return the runs of a block that have not diverged."""
        return [member for member in self._results[block.job.id]["members"] if member["diverged_at"] is None]

    def _end(self, block: Step, number: int | None = None) -> State | None:
        """Return the last weights of the first runs that have not diverged, of all by default; None where all have."""
        seeds = tuple(member["seed"] for member in self._members(block))[:number]
        last = self._results[block.job.id]["steps"][-1]
        return State(name=FINAL, seeds=seeds, steps=(last,) * len(seeds)) if seeds else None

    def _measured(self, blocks: Sequence[Step], runs: Mapping[str, list[dict[str, Any]]]) -> Iterator[Step]:
        """Yield the measures of an arm's blocks of final runs, and their linear probes on another task.

        The weights compared are the last ones, and those matched in loss to a rival. `runs` are those of each arm.
        """
        first, is_controlled = self._study.arms[0].label, False
        for block in blocks:
            end, arm, seeds = self._end(block), block.arm, block.config.seeds
            if end is None:
                continue
            at, states = tuple(self._results[block.job.id]["steps"]), [end]
            for rival in (other for other in runs if other != arm and first in (arm, other)):
                if (target := common_loss(runs[arm], runs[rival])) is not None:
                    met = tuple(first_at(member, at, target) for member in self._members(block))
                    states.append(State(name=matched(rival), seeds=end.seeds, steps=met))
            new = (State(name=UNTRAINED, seeds=seeds, steps=(0,) * len(seeds)),) if arm == first else ()
            shared = {"family": self._plan.family, "weights": block.job.id, "seeds": seeds}
            shared |= {"measuring": self._plan.measuring}
            control = arm == first and not is_controlled  # once is enough
            measure = Measure(**shared, states=(*states, *new), looks=at, control=control)
            linear = Transfer(**shared, task="classes", states=tuple(states), mode="linear", is_final=True)
            yield self._step(measure, "measure", arm, f"{self._name(arm)}, measures")
            yield self._step(linear, "transfer", arm, f"{self._name(arm)} weights, linear probe on classes", LINEAR)
            is_controlled = True

    def _fine_tuned(self, task: str, blocks: Sequence[Step] | None, arm: Arm) -> Iterator[Step]:
        """Yield an arm's search for a rate and its final runs, from the weights of the blocks, or from new ones."""
        number, every = self._study.search_seeds, self._every
        if blocks is None:
            tried = partial(self._fine_tune, task, arm, "transfer search", every[:number])
        else:
            blocks = [block for block in blocks if self._members(block)]
            if not blocks:
                return
            # The first block that has as many runs as a search takes: with a block more, the search stands.
            block = max(blocks, key=lambda each: min(number, len(self._members(each))))
            tried = partial(self._fine_tune, task, arm, "transfer search", block.config.seeds, block=block)
        searched, best = self._searched(arm, "transfer search", tried)
        yield from searched
        if best is None:
            return
        final = partial(self._fine_tune, task, arm, "transfer", rates=(best[1],), optimizer=best[0])
        if blocks is None:
            yield from self._in_blocks(final)
        else:
            yield from (final(block.config.seeds, block=block) for block in blocks)

    def _fine_tune(
        self, task: Any, arm: Arm, role: str, seeds: Seeds, rates: Rates, *, optimizer: Any, block: Step | None = None
    ) -> Step:
        end = None if block is None else self._end(block, self._study.search_seeds if role != "transfer" else None)
        config = Transfer(
            family=self._plan.family,
            task=task,
            weights=None if block is None else block.job.id,
            states=() if end is None else (end,),
            seeds=seeds,  # weights are found by the place of a seed among all that were trained
            optimizer=optimizer,
            training=self._plan.transfer,
            rates=rates,
            is_final=role == "transfer",
        )
        label = NEW if block is None else block.arm
        whose = "new weights" if block is None else f"{self._name(label)} weights"
        words = f"{whose}, fine-tuned on {task} by {arm.name}{self._own(arm, optimizer)}"
        words += ", search" if role == "transfer search" else ""
        return self._step(config, role, label, words, arm.label)

    def _own(self, arm: Arm, optimizer: Any) -> str:
        """Return " with weight_decay 0.1", the searched settings of an arm; empty where the rate alone is searched."""
        words = in_words(optimizer, self._study.tried(arm))
        return f" with {words}" if words else ""

    def _name(self, label: str) -> str:
        return next(arm.name for arm in self._study.arms if arm.label == label)

    def _step(self, config: JobConfig, role: str, label: str, words: str, by: str = "") -> Step:
        config = config.model_copy(update={"results_version": self._version})
        if "search" not in role and config.seeds != self._every:
            first, *_, last = (*config.seeds, config.seeds[-1])
            words += f", seeds {first} to {last}" if first < last else f", seed {first}"
        case = self._plan.name
        job = make_job(f"{case}: {words}", TARGET, config, cost(config), case=case, arm=label, role=role)
        return Step(job, config, role, self._plan, label, by)


def _with_rates(make: Callable[..., Step], optimizer: Any, rates: Rates, _: int) -> Step:
    return make(rates=rates, optimizer=optimizer)


def chosen(scores: Sequence[tuple[Any, Scores | None]]) -> tuple[Any, float] | None:
    """Return the settings of the smallest score with its rate, the first of equals.

    Args:
        scores: settings, and the scores of their rates; None while these are not all known.
    """
    found = []
    for optimizer, known in scores:
        if known is None:
            return None
        if (rate := search.best(known, POLICY)) is not None:
            found.append((known[rate], optimizer, rate))
    return min(found, key=lambda each: each[0])[1:] if found else None


def in_words(optimizer: Any, tried: Sequence[Any]) -> str:
    """Return the settings in which one of several configs differs from the others, as "weight_decay 0.1"."""
    held = settings_of(optimizer)
    return ", ".join(f"{key} {as_text(held.get(key), 'exact')}" for key in differing(tried))


# -- states at matched loss ----------------------------------------------------------


def matched(rival: str) -> str:
    """Return the name of the state at the first evaluation at the loss that every run of both optimizers reached."""
    return f"matched to {rival}"


def completed(rival: str) -> str:
    """Return the name of the state at the end of a whole schedule that ends at a rival's loss."""
    return f"ends with {rival}"


def common_loss(*groups: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the smallest validation loss that every run reached at some evaluation; None where a group has no run."""
    reached = [[min(x for x in member["validation_loss"] if x is not None) for member in group] for group in groups]
    return max(map(max, reached)) if all(reached) else None


def first_at(member: Mapping[str, Any], at: Sequence[int], target: float) -> int:
    """Return the step of the first evaluation at which a run had reached that validation loss."""
    both = zip(at, member["validation_loss"], strict=True)
    return next(step for step, loss in both if loss is not None and loss <= target)


# -- about what a job costs: products of matrices at a rate, and a time per step --------------------

PRODUCTS_A_SECOND = 16e9  # multiplications and additions of one core, small nets, forward and backward
STEP_SECONDS = 5e-4  # of one member's step, whatever its size
JOB_SECONDS = 1.5  # of any job that trains: its data are read, its nets built
MEASURE_SECONDS, MODEL_SECONDS = 5.0, 0.2  # of a measuring job, and of each of its models: probes
CORRUPTIONS = {"images": 15, "text": 10}
UNKNOWN_SIDE = 32  # of images whose size is that of their files
UNKNOWN_PRODUCTS = 1e6  # of a net of a user's own, about those of a small CNN


def products(family: Family) -> float:
    """Return the multiplications of matrix products in the forward pass of one example."""
    net, data = family.net, family.data
    if isinstance(net, schema.OwnNet):
        return UNKNOWN_PRODUCTS
    if isinstance(net, schema.GPTConfig):
        assert not isinstance(data, schema.ImageData)
        share = 16 if net.feed_forward == "swiglu" else 12
        vocabulary = 257 if data.tokenizer == "bytes" else 50_000
        return data.length * (net.depth * (share * net.width**2 + 2 * data.length * net.width) + vocabulary * net.width)
    side = (isinstance(data, schema.ImageData) and data.side) or UNKNOWN_SIDE
    if isinstance(net, schema.ViTConfig):
        tokens = (side // net.patch) ** 2
        return tokens * net.depth * (12 * net.width**2 + 2 * tokens * net.width)
    return _cnn(net, side)


def _cnn(net: schema.CNNConfig, side: int) -> float:
    total, inputs = 0.0, net.width
    for stage, depth in enumerate(net.depths):
        outputs = net.width * 2**stage
        side = side if not stage else (side + 1) // 2
        total += side**2 * 9 * (inputs * outputs + (2 * depth - 1) * outputs**2)
        inputs = outputs
    return total


def cost(config: JobConfig) -> float:
    """Return about the seconds of one core that a job takes; a backward pass is two forward ones."""
    one = 2 * products(config.family) / PRODUCTS_A_SECOND  # of an example forward
    if isinstance(config, Measure):
        sizes, models = config.measuring, sum(len(state.seeds) for state in config.states)
        examples = 5 * models * sizes.examples + len(config.looks) * len(config.seeds) * sizes.path_examples
        kinds = CORRUPTIONS[config.family.data.kind]
        return MEASURE_SECONDS + MODEL_SECONDS * models + one * kinds * examples
    if config.training is None:  # a linear probe
        return JOB_SECONDS
    seeds = config.seeds if isinstance(config, Pretrain) else config.fine_tuned
    num_steps = config.training.budget * len(config.rates) * len(seeds)
    return JOB_SECONDS + num_steps * (STEP_SECONDS + 3 * one * config.training.batch)
