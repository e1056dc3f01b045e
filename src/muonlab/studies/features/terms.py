"""Terms of the features report; `MEASURES` are those of any report on measured nets."""

OWN = """
Equal budget: Every optimizer trains the same net for the same number of steps on the same batches, at the learning
rate that its own search found best. The state compared is that of the last step.

Matched loss: Each run of both optimizers at its first evaluation at or below the smallest clean validation loss that
all of them reached. It asks whether features differ where nets fit clean data equally well, and not only in how far
they were trained. A run matched on the way has not yet reached the small learning rates of the end; the other has.

Evaluation: During training there are {evaluations}, closer together at the start.

n: Runs, one per seed. A seed draws the initial weights and the order of batches, the same for every optimizer; the
split and the test examples are the same in all runs. So intervals and p are about new runs on this data, not about
new data.

Interval: 95%. Of a mean: Student’s t over seeds. Of a difference: Welch’s t, which takes no account of seeds being
shared. Each stands for itself; of twenty, one misses by chance.

p: Welch’s t test of no difference, two-sided.

Effective robustness: Log-odds of corrupted accuracy, minus what a line through the rivals’ evaluations predicts at that
clean accuracy (Taori et al. 2020, arXiv 2007.00644).

Blind layer: One whose probe misjudges as many examples as chance does. It answers by its bias, far from a boundary that
means little, so where either optimizer has one, (b) is the mean over the other layers.

Untrained: The same net at step 0, the control of margins and ranks.

Transfer: Pretrained weights used on another task: other classes of the images, another text, or classes of texts. By a
linear probe of the last layer, or by training all weights further; new weights show what pretraining gave.
"""

MEASURES = """
Corruption: A change of the inputs alone, with labels as they were, seeded per example: of images the fifteen of
Hendrycks & Dietterich (arXiv 1903.12261), of texts changes of characters and words. Corrupted accuracy is the mean
over all corruptions and severities.

Severity: Its degree, 1 to 5. Of images the constants of CIFAR-10-C, rescaled with the side; of texts the share of
characters or words that are changed.

Linear probe: A multinomial logistic regression on the standardised hidden states of one layer, its L2 strength chosen
on validation, for each layer and net.

Margin: Of a held-out example, the probe’s logit of the right class minus the largest other. Raw: in nats; it grows
with the probe’s norm. By norm: divided by the Frobenius norm of the probe’s weights; the claim’s. By distance:
divided by the norm of the difference of the two classes’ weights, the distance to their boundary in standardised
hidden states.

Layer: A block of the net, from the input up; its hidden states are pooled over places to one vector per example.

Effective rank: exp(−Σ qᵢ log qᵢ) of the singular values σᵢ of hidden states, examples × width. With qᵢ = σᵢ² / Σ σ²
it is the paper’s, and the claim’s; with qᵢ = σᵢ / Σ σ it is that of Roy & Vetterli 2007, which is larger. Centred:
the mean over examples is subtracted first; not centred, one common direction may hide all others.

Stable rank: Σ σ² / max σ².

Participation ratio: (Σ σ²)² / Σ σ⁴.
"""
