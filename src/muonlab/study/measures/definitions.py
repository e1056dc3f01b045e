"""What terms mean that reports of several studies use."""

from collections.abc import Sequence

from muonlab.study.measures.claims import ALPHA, MIN_RUNS
from muonlab.study.measures.controls import ERROR

_SHARED = """
Holm: p adjusted over all comparisons of a claim, so that any false alarm among them stays as rare as {alpha:g}.

Corruption: A change of the inputs alone, with labels as they were, seeded for each example: of images the fifteen of
Hendrycks & Dietterich (arXiv 1903.12261), of texts changes of characters and words. Corrupted accuracy is the mean
over all corruptions and severities.

Severity: Its degree, 1 to 5. Of images the constants of CIFAR-10-C, rescaled with the side; of texts the share of
characters or words that are touched.

Linear probe: A multinomial logistic regression on the standardised hidden states of one layer, its L2 strength chosen
on validation, for each layer and net.

Margin: Of a held-out example, the probe’s logit of the right class less the largest other. Raw: in nats; it grows
with the probe’s norm. By norm: divided by the Frobenius norm of the probe’s weights; the claim’s. By distance:
divided by the norm of the difference of the two classes’ weights, the distance to their boundary in standardised
hidden states.

Layer: A block of the net, from the input up; its hidden states are pooled over places to one vector an example.

Effective rank: exp(−Σ qᵢ log qᵢ) of the singular values σᵢ of hidden states, examples × width. With qᵢ = σᵢ² / Σ σ²
it is the paper’s, and the claim’s; with qᵢ = σᵢ / Σ σ it is that of Roy & Vetterli 2007, which is larger. Centred:
the mean over examples is subtracted first; not centred, one common direction may hide all others.

Stable rank: Σ σ² / max σ².

Participation ratio: (Σ σ²)² / Σ σ⁴.

Chance: Accuracy of the best constant answer.

Limit of guessing: Accuracy that guessing exceeds with a probability of at most {error:g}.
"""


def terms(own: str, order: Sequence[str]) -> list[tuple[str, str]]:
    """Return terms with their meanings, those of a study and those that several share.

    Args:
        own: a paragraph for each term of the study, "Term: meaning"; {alpha}, {min_runs} and {error} are put in.
        order: of the terms in the report.
    """
    text = (own + "\n" + _SHARED).format(alpha=ALPHA, min_runs=MIN_RUNS, error=ERROR)
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    meanings = {term: meaning for term, _, meaning in (paragraph.partition(": ") for paragraph in paragraphs)}
    return [(term, meanings[term]) for term in order]
