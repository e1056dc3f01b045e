"""What each term of the features report means."""

from muonlab.runs.findings import Definitions
from muonlab.studies.features.claims import ALPHA, MIN_RUNS
from muonlab.studies.features.controls import ERROR
from muonlab.studies.features.readings import FeatureRuns

_TEXT = """
Equal budget: Every optimizer trains the same net for the same number of steps on the same batches, at the learning
rate that its own search found best. The state compared is that of the last step.

Matched loss: Each run of both optimizers at its first look at or below the smallest clean validation loss that all of
them reached. It asks whether features differ where nets fit clean data alike, and not only in how far they were
trained. A run matched on the way has not yet come to the small learning rates of the end, and the other one has.

n: Runs, one for each seed. A seed draws the initial weights and the order of batches, the same for every optimizer;
the split and the test examples are the same in all runs. So intervals and p speak of new runs on this data, not of
new data.

Interval: 95%. Of a mean: Student’s t over seeds. Of a difference: Welch’s t, which takes no account of seeds being
shared. Each stands for itself; of twenty, one misses by chance.

p: Welch’s t test of no difference, two-sided.

Holm: p adjusted over all comparisons of a claim, so that any false alarm among them stays as rare as {alpha:g}.

Higher, lower: The adjusted p is at most {alpha:g} and both have at least {min_runs} runs.

Yes: The first optimizer is higher in more than half of a claim’s comparisons, against every rival, and lower in none.
No: the same, lower. It depends: higher in some and lower in others. Inconclusive: all else, and wherever a control
failed.

Corruption: A change of the inputs alone, with labels as they were, seeded for each example: of images the fifteen of
Hendrycks & Dietterich (arXiv 1903.12261), of texts changes of characters and words. Corrupted accuracy is the mean
over all corruptions and severities.

Severity: Its degree, 1 to 5. Of images the constants of CIFAR-10-C, rescaled with the side; of texts the share of
characters or words that are touched.

Effective robustness: Log-odds of corrupted accuracy, less what a line through the rivals’ looks expects at that clean
accuracy (Taori et al. 2020, arXiv 2007.00644).

Linear probe: A multinomial logistic regression on the standardised hidden states of one layer, its L2 strength chosen
on validation, for each layer and net.

Margin: Of a held-out example, the probe’s logit of the right class less the largest other. Raw: in nats; it grows
with the probe’s norm. By norm: divided by the Frobenius norm of the probe’s weights; the claim’s. By distance:
divided by the norm of the difference of the two classes’ weights, the distance to their boundary in standardised
hidden states.

Blind layer: One whose probe misjudges as many as chance does. It answers by its bias, far from a boundary that means
little, so where either optimizer has one, (b) is the mean over the other layers.

Layer: A block of the net, from the input up; its hidden states are pooled over places to one vector an example.

Effective rank: exp(−Σ qᵢ log qᵢ) of the singular values σᵢ of hidden states, examples × width. With qᵢ = σᵢ² / Σ σ²
it is the paper’s, and the claim’s; with qᵢ = σᵢ / Σ σ it is that of Roy & Vetterli 2007, which is larger. Centred:
the mean over examples is subtracted first; not centred, one common direction may hide all others.

Stable rank: Σ σ² / max σ².

Participation ratio: (Σ σ²)² / Σ σ⁴.

Untrained: The same net at step 0, the control of margins and ranks.

Transfer: Pretrained weights put to another task: other classes of the images, another text, or classes of texts. By a
linear probe of the last layer, or by training all weights further; new weights show what pretraining gave.

Chance: Accuracy of the best constant answer.

Limit of guessing: Accuracy that guessing exceeds with a probability of at most {error:g}.

Edge: The best learning rate is the smallest or the largest that was tried, so a better one may lie beyond.
"""


def definitions(runs: FeatureRuns) -> Definitions:
    """Return the terms of the report with their meanings."""
    text = _TEXT.format(alpha=ALPHA, min_runs=MIN_RUNS, error=ERROR)
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    looked = sorted({len(family.plan.training.steps) for family in runs.families})
    terms = [paragraph.partition(": ") for paragraph in paragraphs]
    found = [(term, meaning) for term, _, meaning in terms]
    numbers = " or ".join(map(str, looked))
    found.insert(2, ("Look", f"An evaluation on the way; there are {numbers}, closer together at the start."))
    return Definitions(tuple(found))
