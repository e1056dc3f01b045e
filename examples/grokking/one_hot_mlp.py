"""A two-layer perceptron on one-hot encoded tokens, with a quadratic activation: a very small net that groks.

    logits = head (hidden [one-hot a, one-hot b, ...])^2

References:
    Gromov 2023, "Grokking modular arithmetic", arXiv 2301.02679, which also gives weights that solve modular addition.
"""

import torch
from torch import Tensor, nn


class OneHotMLP(nn.Module):
    """A classifier of token sequences of fixed length.

    Args:
        vocabulary: V, number of token ids.
        tokens: T, tokens of a sequence.
        classes: C.
        width: D, number of hidden units.
    """

    def __init__(self, vocabulary: int, tokens: int, classes: int, width: int):
        super().__init__()
        self.vocabulary = vocabulary
        self.hidden = nn.Linear(tokens * vocabulary, width, bias=False)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits: (B, T) int64 -> (B, C)."""
        # A comparison and not F.one_hot, which torch.func.vmap cannot stack: it reads its smallest entry.
        ids = torch.arange(self.vocabulary, device=tokens.device)
        one_hot = (tokens.unsqueeze(-1) == ids).to(self.hidden.weight.dtype)  # (B, T, V)
        return self.head(self.hidden(one_hot.flatten(1)).square())


def build(vocabulary: int, tokens: int, classes: int) -> nn.Module:
    """Return the net with 500 hidden units and torch's initial weights.

    Args:
        vocabulary: number of token ids.
        tokens: tokens of a sequence.
        classes: number of classes.
    """
    return OneHotMLP(vocabulary, tokens, classes, width=500)
