"""Terms of the features report; `MEASURES` are those of any report on measured nets."""

OWN = """
Equal budget: Every optimizer trains the same net for the same number of steps on the same batches, at the learning
rate that its own search found best. The state compared is that of the last step.

Matched loss: Both optimizers where their clean validation losses agree, so that features differ in more than how far
nets were trained. By schedules: the one that ends lower trains again for fewer steps, to the end of a schedule of its
own. By checkpoints: each run at its first evaluation at or below the smallest loss that all runs of both reached, in
the middle of its schedule, where learning rates are still high.

Mean over cases: A case is a net with its data; each counts the same, and several widths and budgets of one count as
one. A claim is answered by it; comparisons in single cases are votes beneath it.

Here: The answer is about the nets and data of this study. Without the word it is also about others like them: the
interval over cases (random effects) says the same, which takes three cases or more.

Yes: The mean over cases is higher than that of every rival, by an interval above 0, and no single comparison is
decided to be lower. No: the opposite. It depends: means or decided comparisons contradict each other. Inconclusive,
or open: all else, and wherever a control failed.

Set aside: A comparison with runs that are no fair side of one: the optimizer learnt nothing, lost its tuning between
the search and the final runs, or diverged in half of them.

Evaluation: During training there are {evaluations}, closer together at the start.

n: Runs, one per seed. A seed draws the initial weights and the order of batches, the same for every optimizer; the
split and the test examples are the same in all runs. So intervals and p are about new runs on this data, not about
new data.

Interval: 95%. Of a mean: Student’s t over seeds. Of a difference: Welch’s t, which takes no account of seeds being
shared. Of a mean over cases: the same variances, added up. Each stands for itself; of twenty, one misses by chance.

p: Welch’s t test of no difference, two-sided.

Effective robustness: Log-odds of corrupted accuracy, minus what a line through a rival’s evaluations predicts at that
clean accuracy, only where both have been (Taori et al. 2020, arXiv 2007.00644).

Blind layer: One whose probe misjudges as many examples as chance does. It answers by its bias, far from a boundary
that means little, so where either optimizer has one, (b) is the mean over the other layers.

Untrained: The same net at step 0, the control of margins and ranks.

Transfer: Pretrained weights used on another task: other classes of the images, another text, or classes of texts. By
a linear probe of the last layer, or by training all weights further; new weights show what pretraining gave. """

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
