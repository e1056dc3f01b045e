"""What is trained on the problem: nets, losses, and the treatment of their parameters. Letters: B batch, K classes."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.rules import adamw, muon, sgd
from muonlab.studies.components.config import SGD, AdamW, Components, Muon, Net
from muonlab.train.by_rule import Treatment


def softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (B, K) and labels (B,), one an example (B,).

    That of `muonlab.losses.softmax` to rounding, in a third of the time where classes are few: with the classes last,
    torch takes each example's few for a vector of its own.
    """
    return F.cross_entropy(logits.mT.contiguous()[None], labels[None], reduction="none")[0]


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1/2 |z - (e_y - 1/K)|^2 of logits (B, K) and labels (B,), one an example (B,)."""
    num_classes = logits.shape[-1]
    targets = F.one_hot(labels, num_classes).to(logits.dtype) - 1 / num_classes
    return 0.5 * (logits - targets).square().sum(-1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax": softmax, "squared": squared}


def build_net(components: Components, net: Net) -> LinearClassifier | MLP:
    """Return the net of a job, with weights of torch's global generator."""
    if net.depth == 0:
        return LinearClassifier(components.dimension, components.classes, bias=False)
    return MLP(components.dimension, components.classes, depth=net.depth, width=net.width, activation=net.activation)


def treatments(
    net: nn.Module, optimizer: SGD | AdamW | Muon, rates: Sequence[float], device: str = "cpu"
) -> dict[str, Treatment]:
    """Return parameter name -> treatment, with a learning rate for each member.

    AdamW takes the biases beside Muon, with the defaults of the study's own AdamW.
    """
    lr = torch.tensor(list(rates), dtype=torch.float64, device=device)
    fields = optimizer.model_dump(exclude={"name"})
    if not isinstance(optimizer, Muon):
        one = Treatment(adamw if isinstance(optimizer, AdamW) else sgd, {"lr": lr, **fields})
        return {name: one for name, _ in net.named_parameters()}
    matrices = Treatment(muon, {"lr": lr, **fields, "adjust_lr_fn": "none"})
    others = AdamW(weight_decay=optimizer.weight_decay).model_dump(exclude={"name"})
    vectors = Treatment(adamw, {"lr": lr, **others})
    return {name: matrices if p.ndim == 2 else vectors for name, p in net.named_parameters()}
