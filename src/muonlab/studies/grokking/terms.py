"""What every number in the report of a grokking study means, for that study's own settings."""

from muonlab.report.findings import Definitions
from muonlab.stats import blocked
from muonlab.studies.grokking.conditions import GrokkingRuns
from muonlab.studies.grokking.verdict import EQUIVALENCE
from muonlab.study import words
from muonlab.study.words import several

_OWN = """
Run: One training with one seed.

Seed: Decides, together with the task, the net and the loss, the initial weights, the split, the batches and the dropout
of a run. Within a block, runs of Muon and of AdamW with the same seed start from the same weights and the same split.
The tests treat the two groups as independent all the same, which is conservative under that pairing.

Condition, block: A condition is all runs that differ in their seed alone. A block holds the conditions of one task and
loss (and of every other setting that the study varies outside the optimizer). Runs are compared within a block only.
Blocks of another task, net or loss share no random streams.

Accuracy: On the whole train set and the whole validation set, without dropout, every {cadence} steps.

First crossing: The first evaluation with a validation accuracy of at least {threshold}, train accuracy having been at
least {train_threshold} at that evaluation or before.

Interval width: Evaluations are {cadence} steps apart, so a crossing lies anywhere within the {cadence} steps before the
time that is given for it. Differences smaller than that mean nothing.

Sustained crossing: The first such evaluation from which on accuracy stayed at or above the threshold {follow}. Whether
a run stayed is not known where it crossed too late to be followed so long: the share of runs that stayed leaves it out,
and the ratio of crossings that last counts it with the whole budget.

Lowest accuracy after: The smallest validation accuracy from the first crossing on, as long as the run was followed.

Censored: Not crossed within the budget of {budget} steps. Such a run is never dropped: it counts as “not yet” up to its
budget. A run that diverged before it crossed never will, and is censored at the budget too.

Epoch: Examples drawn by then, divided by the size of the train set.

FLOPs of matrix products: Floating-point operations of the matrix products of training, the optimizer’s own included,
evaluations not. The headline counts the net at all positions of its input, as it is written. The answer is read at the
last position, so that of the last layer most is not needed, and a program may leave it out: both are given, since
without it the optimizer’s own products weigh more. What is no matrix product, such as AdamW’s own update, is not
counted.

Kaplan–Meier curve: The estimated share of runs that have not crossed by a time, with a pointwise 95% band on the
log(−log) scale.

Median time: The first time at which at most half of the runs have not crossed. Its interval is where the band contains
one half (Brookmeyer and Crowley). “Not reached”, or “–” for a bound: the budget ended before.

Mean steps: The restricted mean, that of the smaller of crossing time and budget, with Student’s t interval. A run that
crossed counts at the middle of the {cadence} steps before the evaluation that saw it.

Ratio of mean steps: The restricted mean of the first optimizer over that of the second; over several blocks, the
geometric mean of their ratios. Its 95% interval is Student’s, of the logarithm, with Satterthwaite’s degrees of
freedom; in simulations it contains the truth in 93 to 97% of studies. It speaks of new runs of these blocks, not of new
tasks. Where all runs of an optimizer crossed at one evaluation, the error of the {cadence} steps before it is added.
Where more than a quarter of the runs did not cross and fewer than {crossings} did, or a block has fewer than {runs} of
an optimizer, there is no interval: it would not keep what it promises.

Chosen settings: Of several settings of an optimizer the best over all blocks is compared. With search_seeds it was
found by runs of its own. Without, by the very runs that are judged: interval and p then hold for all pairs of settings
at once, and so for the chosen one.

The ratio and the budget: A run that did not cross counts with the whole budget, less than it needs, so the ratio
depends on the budget, our own choice. Were the budget longer and these runs still did not cross, the ratio would move
towards that of the shares of runs that did not cross. Where only the later optimizer has such runs, the budget
understates the difference; where the sooner one has more of them, it flatters the sooner one.

Permutation p: How often labels permuted within each block give a logarithm of the ratio that is as far from 0, in units
of its standard error, as the observed one. It is never below the p of the interval, so that a p of at most {alpha:g}
never stands beside an interval that contains 1. Few runs cannot give a small p: 3 + 3 runs in one block none below 0.1.

Permutation of ranks: The same of the mean rank. Runs that never crossed rank last, tied.

Log-rank p: Whether two groups cross at the same rate at all times, by permutation of labels within blocks.

Welch’s t: On the epochs of the runs that crossed, pooled over blocks, as arXiv 2504.16041 did.

Mann–Whitney: On the steps of all runs, pooled over blocks; runs that never crossed rank last, tied.

Holm: p adjusted over all tests of the report, so that any false alarm among them stays as rare as {alpha:g}.

Hodges–Lehmann shift: The median of all differences between a run of the first and a run of the second optimizer.

Cliff’s delta: Share of pairs in which the first is later minus the share in which it is sooner, from −1 to 1.

Wilson interval: The 95% interval of every share of runs, honest at 0 and at 1.

Chance: Accuracy of the best constant answer over all rows of the task.

Limit of guessing: Accuracy that guessing exceeds, with a probability of at most {error:g}, at any evaluation of any run
of the control.

Inconclusive: No block holds {min_runs} runs of both, or fewer than half of the planned blocks do; a control rose above
chance; all runs of an optimizer diverged; runs that should differ are one run; no run crossed; the permutation p is
above {alpha:g}; ranks tell the two apart the other way round than means do, as where most runs are sooner but some
never cross; the best learning rate of the optimizer that is behind lies on the edge of those that were tried; or it had
fewer settings to choose from.

Depends on the task: With p adjusted by Holm over the tasks, sooner on some and later on others.

It does not last: Of the optimizer that is ahead, fewer than half of the runs that could be followed stayed at or above
the threshold.

No difference: The interval of the ratio contains 1 and lies within {low:.2f} and {high:g}, and most runs of every
condition crossed.
"""


_NUMBERS = {"low": 1 / EQUIVALENCE, "high": EQUIVALENCE, "crossings": blocked.CROSSINGS, "runs": blocked.RUNS}


def definitions(runs: GrokkingRuns) -> Definitions:
    """Return the terms of the report with their meanings."""
    protocols = [condition.config.protocol for condition in (*runs.conditions, *runs.controls)]
    fields = ("cadence", "threshold", "train_threshold", "budget", "follow")
    values = {field: several(sorted({str(getattr(protocol, field)) for protocol in protocols})) for field in fields}
    followed = values["follow"]
    values["follow"] = (
        "at every later evaluation up to the budget" if followed == "budget" else f"for {followed} more evaluations"
    )
    return words.definitions(_OWN, values={**values, **_NUMBERS})
