"""Nets by name, made to fit a data set."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.nets.resnet import ResNet
from muonlab.nets.transformer import Transformer
from muonlab.nets.vit import ViT

NETS: dict[str, Callable[..., nn.Module]] = {
    "cnn": ResNet,
    "gpt": GPT,
    "linear": LinearClassifier,
    "mlp": MLP,
    "transformer": Transformer,
    "vit": ViT,
}


def build(net: str | Callable[..., nn.Module], sizes: Mapping[str, Any], **fields: Any) -> nn.Module:
    """Return a net, with weights of torch's global generator.

    Args:
        net: one of `NETS`; or a class or function, which is given those of the sizes that it has arguments for.
        sizes: what the net must fit, `muonlab.data.dataset.Dataset.sizes`.
        fields: other arguments of the net.

    Examples:
        >>> build("mlp", {"inputs": 64, "classes": 10}, depth=1).head.out_features
        10
    """
    if isinstance(net, str):
        return NETS[net](**sizes, **fields)
    accepted = inspect.signature(net).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in accepted.values())
    return net(**{key: size for key, size in sizes.items() if takes_all or key in accepted}, **fields)
