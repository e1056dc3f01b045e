"""Shares of successes: how many runs crossed, their mean over runs, and how good an accuracy chance alone can give."""

import math
from dataclasses import replace

import scipy
from numpy.typing import ArrayLike

from muonlab.stats.results import Estimate, finite_group, upper_probability


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Estimate a proportion with Wilson's score interval (Wilson 1927, JASA 22, 209-212), honest at 0 and at n.

    Raises:
        ValueError: successes is not within 0..n, or level is not in (0, 1).
    """
    upper_probability(level)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials: successes must lie within 0..n")
    if n == 0:
        return Estimate(None, None, None, level, 0, "no trials")
    interval = scipy.stats.binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), level, int(n))


def as_share(mean: Estimate) -> Estimate:
    """Return the mean of shares, such as one accuracy per run, with an interval within [0, 1] for Student's.

    The arms of Student's interval, of one length, are laid around the log-odds of the mean instead (the delta method).
    Near 0 and 1 the interval is longer towards the middle, and covers better than Student's own, cut off at the end of
    the range or not.
    """
    value, lower, upper = mean.value, mean.lower, mean.upper
    if value is None or lower is None or upper is None or not 0 < value < 1:
        return mean
    middle, arm = math.log(value) - math.log1p(-value), (upper - lower) / (2 * value * (1 - value))
    return replace(mean, lower=float(scipy.special.expit(middle - arm)), upper=float(scipy.special.expit(middle + arm)))


def chance_limit(chance: float, num_examples: int, num_looks: int, error: float = 1e-3) -> float:
    """Return the smallest accuracy that guessing exceeds, at any evaluation, with a probability of at most `error`.

    A control trained on random labels is evaluated many times, and its best accuracy is what catches the eye. Hits at
    one evaluation are binomial(num_examples, chance) when labels are independent of the guesses; evaluations may depend
    on each other in any way (Bonferroni), so the limit errs to the high side.

    Args:
        chance: probability of one hit, such as 1/97.
        num_examples: size of the evaluated set.
        num_looks: number of evaluations, over all runs that are judged together.
        error: probability, over all evaluations, that a guesser exceeds the limit.

    Raises:
        ValueError: chance not in [0, 1], error not in (0, 1), or a number below 1.
    """
    _check_chance(chance, error)
    if num_examples < 1 or num_looks < 1:
        raise ValueError(f"num_examples {num_examples} and num_looks {num_looks} must be at least 1")
    return float(scipy.stats.binom.isf(error / num_looks, num_examples, chance)) / num_examples


def chance_limit_of_mean(chance: float, accuracies: ArrayLike, error: float = 1e-3) -> float:
    """Return the mean accuracy that independent guessers exceed with a probability of at most `error`.

    A net with random weights does not toss a coin per example: it puts similar examples into one class, and may be far
    above chance by luck. So the spread between nets decides (Student's t), not the number of examples.

    Fewer than three guessers are too few to tell, and the limit is 1.

    Args:
        chance: accuracy that their mean is at most, such as that of the best constant answer.
        accuracies: (n,) one per guesser.
        error: probability, if accuracies are about normal.

    Raises:
        ValueError: accuracies are not one-dimensional or not finite, chance not in [0, 1], or error not in (0, 1).
    """
    values = finite_group(accuracies)
    _check_chance(chance, error)
    if len(values) < 3:
        return 1.0
    return min(1.0, chance + float(scipy.stats.t.isf(error, len(values) - 1) * scipy.stats.sem(values)))


def _check_chance(chance: float, error: float) -> None:
    if not 0 <= chance <= 1 or not 0 < error < 1:
        raise ValueError(f"chance {chance} must lie within [0, 1] and error {error} within (0, 1)")
