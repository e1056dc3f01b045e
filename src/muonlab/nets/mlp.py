"""A multi-layer perceptron, and the linear softmax classifier. Letters: B batch, D width, C classes."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.arguments import check_choice, check_positive
from muonlab.nets.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Layer(nn.Module):
    """dropout(activation(linear x))."""

    def __init__(self, inputs: int, width: int, activation: str, dropout: Dropout):
        super().__init__()
        self.activation = activation
        self.linear = nn.Linear(inputs, width)
        self.dropout = dropout

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the hidden state: (B, inputs) -> (B, D)."""
        return self.dropout(ACTIVATIONS[self.activation](self.linear(x)), key)


class MLP(nn.Module):
    """A multi-layer perceptron classifier of vectors, or of anything else of a fixed size, flattened.

    Args:
        inputs: number of features of an example: 64 for 8 x 8 pixels.
        classes: C.
        depth: number of hidden layers.
        width: D.
        activation: "relu" or "gelu".
        dropout: rate in the hidden states.

    Raises:
        ValueError: a size below one, or an unknown activation.

    Example:
        >>> net = MLP(64, 10)
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        depth: int = 2,
        width: int = 256,
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive(inputs=inputs, classes=classes, depth=depth, width=width)
        check_choice("activation", activation, ACTIVATIONS)
        self.blocks = nn.ModuleList(
            Layer(width if index else inputs, width, activation, Dropout(dropout, index)) for index in range(depth)
        )
        self.head = nn.Linear(width, classes)
        self.reset_parameters()

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the submodules whose outputs are the hidden states, (B, D) each, in order."""
        return tuple(f"blocks.{index}" for index in range(len(self.blocks)))

    def forward(self, inputs: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits: (B, ...) -> (B, C).

        Args:
            inputs: examples.
            key: dropout key, an int64 scalar (see `Dropout`); unused in eval mode.
        """
        x = inputs.flatten(1)
        for block in self.blocks:
            x = block(x, key)
        return self.head(x)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, and set the biases to zero.

        Hidden matrices are normal with variance 2 / columns (He et al. 2015, arXiv 1502.01852); the head is uniform in
        +-1 / sqrt(columns), torch's default.
        """
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                module.bias.zero_()
        bound = 1 / math.sqrt(self.head.in_features)
        self.head.weight.uniform_(-bound, bound, generator=generator)
        self.head.bias.zero_()


class LinearClassifier(nn.Module):
    """The linear softmax classifier: logits = W x (+ b), from zero.

    Its one matrix is called linear and not head, so that `muonlab.optim.split_params` gives it to Muon: theory is about
    that matrix. Beside nets with a head, rules={"linear.weight": "adamw"} treats it as one.

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

    @property
    def taps(self) -> tuple[str, ...]:
        """No names: there are no hidden states."""
        return ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits: (B, ...) -> (B, C)."""
        return self.linear(inputs.flatten(1))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set all to zero, the one start from which no direction is preferred; the generator is not drawn from."""
        for parameter in self.parameters():
            parameter.zero_()
