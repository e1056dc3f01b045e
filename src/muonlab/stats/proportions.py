"""Shares of successes: how many runs crossed, and how good an accuracy can chance alone give?"""

import math

import scipy
from numpy.typing import ArrayLike

from muonlab.stats.groups import finite_group, variance_of_mean
from muonlab.stats.results import Estimate, upper_probability


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Estimate a proportion, with Wilson's score interval (Wilson 1927, JASA 22, 209-212), honest at 0 and at n.

    Returns:
        The proportion and its interval; None with a reason where n is 0.

    Raises:
        ValueError: successes is not within 0..n, or level is not in (0, 1).
    """
    z = float(scipy.stats.norm.ppf(upper_probability(level)))
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials: successes must lie within 0..n")
    if n == 0:
        return Estimate(None, None, None, level, 0, "no trials")
    proportion = successes / n
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z * math.sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # The exact bounds at 0 and at n are 0 and 1; the sums above meet them only up to rounding.
    lower = 0.0 if successes == 0 else centre - margin
    upper = 1.0 if successes == n else centre + margin
    return Estimate(proportion, lower, upper, level, int(n))


def chance_limit(chance: float, num_examples: int, num_looks: int, error: float = 1e-3) -> float:
    """Return the smallest accuracy that guessing exceeds, at any look, with a probability of at most `error`.

    A control trained on random labels is evaluated many times, and its best accuracy is what catches the eye. Hits at
    one look are binomial(num_examples, chance) when labels are independent of the guesses; looks may depend on each
    other in any way (Bonferroni), so the limit errs to the high side.

    Args:
        chance: probability of one hit, such as 1/97.
        num_examples: size of the evaluated set.
        num_looks: number of evaluations, over all runs that are judged together.
        error: probability, over all looks, that a guesser exceeds the limit.

    Returns:
        An accuracy, a multiple of 1 / num_examples.

    Raises:
        ValueError: chance not in [0, 1], error not in (0, 1), or a number below 1.
    """
    if not 0 <= chance <= 1 or not 0 < error < 1:
        raise ValueError(f"chance {chance} must lie within [0, 1] and error {error} within (0, 1)")
    if num_examples < 1 or num_looks < 1:
        raise ValueError(f"num_examples {num_examples} and num_looks {num_looks} must be at least 1")
    return float(scipy.stats.binom.isf(error / num_looks, num_examples, chance)) / num_examples


def chance_limit_of_mean(chance: float, accuracies: ArrayLike, error: float = 1e-3) -> float:
    """Return the mean accuracy that guessers of independent draws exceed with a probability of at most `error`.

    One net with random weights is no coin for each example: it puts like examples into one class, and may be far above
    chance by luck. So the spread between nets decides (Student's t), not the number of examples.

    Args:
        chance: accuracy that their mean is at most, such as that of the best constant answer.
        accuracies: (n,) one of each guesser.
        error: probability, if accuracies are about normal.

    Returns:
        An accuracy; 1 for fewer than three guessers, of which nothing can be told.

    Raises:
        ValueError: accuracies are not one-dimensional or not finite, chance not in [0, 1], or error not in (0, 1).
    """
    values = finite_group(accuracies)
    if not 0 <= chance <= 1 or not 0 < error < 1:
        raise ValueError(f"chance {chance} must lie within [0, 1] and error {error} within (0, 1)")
    if len(values) < 3:
        return 1.0
    spread = math.sqrt(variance_of_mean(values))
    return min(1.0, chance + float(scipy.stats.t.isf(error, len(values) - 1)) * spread)
