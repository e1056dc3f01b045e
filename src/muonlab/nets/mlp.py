"""A multi-layer perceptron, and the linear softmax classifier.

Letters: B batch, T tokens, V vocabulary, D width, C classes.
"""

import math

import torch
from torch import Tensor, nn

from muonlab.nets import layers
from muonlab.nets.arguments import check_choice, check_positive, check_scales
from muonlab.nets.dropout import Dropout

ACTIVATIONS = ("relu", "gelu", "square")


class Layer(nn.Module):
    """dropout(activation(linear x))."""

    def __init__(self, inputs: int, width: int, activation: str, dropout: Dropout, bias: bool = True):
        super().__init__()
        self.activation = activation
        self.linear = nn.Linear(inputs, width, bias)
        self.dropout = dropout

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the hidden state: (B, inputs) -> (B, D)."""
        return self.dropout(layers.ACTIVATIONS[self.activation](self.linear(x)), key)


class MLP(nn.Module):
    """A multi-layer perceptron classifier of vectors, or of anything else of a fixed size, flattened.

    With a vocabulary it classifies sequences of T tokens: each token is one-hot encoded, and the first layer reads the
    T V numbers side by side. Its matrix then takes the place of an embedding, but is a hidden one to
    `muonlab.optim.split_params`: rules={"blocks.0": "adamw"} gives it to AdamW.

    Args:
        inputs: number of features of an example: 64 for 8 x 8 pixels; with a vocabulary T, the tokens of a sequence.
        classes: C.
        vocabulary: V, number of token ids, where examples are sequences of them. Other ids are encoded as zeros.
        depth: number of hidden layers.
        width: D.
        activation: "relu", "gelu" or "square".
        bias: give the linear layers biases, the head too.
        dropout: rate in the hidden states.
        init_scale: what all initial matrices are multiplied by (alpha in "Omnigrok", Liu et al. 2023, arXiv
            2210.01117).

    Raises:
        ValueError: a size below one, an unknown activation, or a scale that is not positive.

    Examples:
        >>> net = MLP(64, 10)
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

        Addition modulo 97, by the net of Gromov 2023 but for the scale of its weights:

        >>> net = MLP(2, 97, vocabulary=97, depth=1, width=500, activation="square", bias=False)
        >>> net(torch.tensor([[5, 7], [96, 0]])).shape
        torch.Size([2, 97])

    References:
        Gromov 2023, "Grokking modular arithmetic", arXiv 2301.02679: two layers with a quadratic activation between.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        vocabulary: int | None = None,
        depth: int = 2,
        width: int = 256,
        activation: str = "relu",
        bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ):
        super().__init__()
        check_positive(inputs=inputs, classes=classes, depth=depth, width=width)
        check_positive(vocabulary=1 if vocabulary is None else vocabulary)
        check_choice("activation", activation, ACTIVATIONS)
        check_scales(init_scale=init_scale)
        self.vocabulary, self.init_scale = vocabulary, init_scale
        features = inputs if vocabulary is None else inputs * vocabulary
        self.blocks = nn.ModuleList(
            Layer(width if index else features, width, activation, Dropout(dropout, index), bias)
            for index in range(depth)
        )
        self.head = nn.Linear(width, classes, bias)
        self.reset_parameters()

    taps = property(layers.block_names)  # of hidden states, (B, D)

    def forward(self, inputs: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits: (B, ...) -> (B, C); with a vocabulary (B, T) int64 -> (B, C). Key as of `Dropout`."""
        if self.vocabulary is not None:
            # Not F.one_hot, which reads its smallest entry and so does not stack.
            ids = torch.arange(self.vocabulary, device=inputs.device)
            inputs = (inputs.unsqueeze(-1) == ids).to(self.head.weight.dtype)  # (B, T, V)
        x = inputs.flatten(1)
        for block in self.blocks:
            x = block(x, key)
        return self.head(x)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights, and set the biases to zero.

        Hidden matrices are normal with variance 2 / columns (He et al. 2015, arXiv 1502.01852); the head is uniform in
        +-1 / sqrt(columns), torch's default. All are then multiplied by init_scale.
        """
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        bound = 1 / math.sqrt(self.head.in_features)
        self.head.weight.uniform_(-bound, bound, generator=generator)
        for parameter in self.parameters():
            parameter.zero_() if parameter.ndim == 1 else parameter.mul_(self.init_scale)


class LinearClassifier(nn.Module):
    """The linear softmax classifier: logits = W x (+ b), from zero.

    Its one matrix is called linear and not head, so that `muonlab.optim.split_params` gives it to Muon: theory is about
    that matrix. To compare it with nets that have a head, rules={"linear.weight": "adamw"} treats it as one.

    Args:
        inputs: number of features of an example.
        classes: C.
        bias: add a bias.

    Raises:
        ValueError: a size below one.
    """

    def __init__(self, inputs: int, classes: int, *, bias: bool = True):
        super().__init__()
        check_positive(inputs=inputs, classes=classes)
        self.linear = nn.Linear(inputs, classes, bias=bias)
        self.reset_parameters()

    taps: tuple[str, ...] = ()  # there are no hidden states

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits: (B, ...) -> (B, C)."""
        return self.linear(inputs.flatten(1))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set all to zero, the one start from which no direction is preferred; the generator is not drawn from."""
        for parameter in self.parameters():
            parameter.zero_()
