"""Which parameter goes where: Muon is for the hidden matrices, AdamW for all else.

`roles` is the coarse division that the studies compare. `adamw_reason` and `kind_and_blocks` are the fine one, for any
net, by module types, names and shapes; `muonlab.optim.split.split_params` is its door and says what it does.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from muonlab.optim.layout import Kind

Role = Literal["embedding", "head", "hidden", "vector"]

# What Muon takes, by name; AdamW takes the rest. "hidden" is the practice of Jordan et al. 2024.
TAKES: dict[str, frozenset[Role]] = {
    "hidden": frozenset({"hidden"}),
    "hidden+head": frozenset({"hidden", "head"}),
    "hidden+embedding": frozenset({"hidden", "embedding"}),
    "matrices": frozenset({"hidden", "head", "embedding"}),
}
HEAD_NAMES = ("head", "lm_head")


def roles(net: nn.Module) -> dict[str, Role]:
    """Return the role of every parameter of a net, by its name.

    Tables of nn.Embedding are embeddings; matrices of a module called head or lm_head are heads; other matrices are
    hidden; all else are vectors.
    """
    found: dict[str, Role] = {}
    for path, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{path}.{name}" if path else name
            if isinstance(module, nn.Embedding):
                found[full_name] = "embedding"
            elif parameter.ndim < 2:
                found[full_name] = "vector"
            else:
                found[full_name] = "head" if path.rsplit(".", 1)[-1] in HEAD_NAMES else "hidden"
    return found


# --- names that real nets use (timm, torchvision, transformers, nanoGPT, Llama, diffusers), some as globs


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Modules that are, or end in, an output head, wherever they stand: their last matrix is the head.
HEADS = _words(
    """head lm_head mlm_head head_dist mc_head shared_head classification_head classifier aux_classifier unembed
    unembedding logits to_logits cls_logits lm_logits cls_score bbox_pred bbox_reg bbox_predictor
    class_labels_classifier qa_outputs embed_out"""
)
# A list of heads: each of its members is one.
HEAD_LISTS = _words("heads heads_dist lm_heads classifiers class_embed bbox_embed")
# Names that mean other things within repeated layers (attention.output), so that they count outside of those alone.
HEAD_LEAVES = _words(
    """fc output output_layer output_projection decoder decoder_pred generator cls score score.out_proj
    proj_out conv_out logits_proj vocab_projector seq_relationship last_linear final_layer final_layer.linear"""
)
# Tables and tokens that are looked up or added, never multiplied with.
EMBEDDINGS = _words(
    """emb *_emb *embed *embeds *embedding* embed_* pos_embed* wte wpe W_E W_pos *_token *_tokens cls_token* latent
    latents rel_pos* relative_attention_bias *bias_table"""
)
# Parameters of two and more axes that act element by element.
ELEMENTWISE = _words(
    """*bias* b_? A_log* D alpha beta *gamma gain temperature scale *_scale layer_scale* weight_g time_decay time_first
    time_faaaa time_mix_*"""
)
# Query, key and value in one layer, in equal thirds of its rows if it has thrice as many rows as columns.
FUSED = _words("qkv Wqkv c_attn qkv_proj to_qkv in_proj_weight")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
# Modules whose parameters' use is known, so that their names need not be asked.
KNOWN = (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS, *RECURRENT)


# --- where a net holds its parameters


@dataclass(frozen=True, eq=False)
class Place:
    """A place where a net holds a parameter; a tied one has several."""

    name: str  # full and dotted
    parameter: Tensor
    module: nn.Module | None = None  # what holds it, if more than the name is known

    @cached_property
    def parts(self) -> list[str]:
        """Components of the name, without those that torch's parametrizations (weight_norm) put in."""
        return re.sub(r"(^|\.)parametrizations\.([^.]+)\.original\d*$", r"\1\2", self.name).split(".")

    @property
    def tensor(self) -> str:
        """What its module calls the parameter; in a ParameterList, what the list is called."""
        return _last_word(self.parts)

    @property
    def layer(self) -> str:
        """What the module is called; in a ModuleList or nn.Sequential, what that is called."""
        return _last_word(self.parts[:-1])


def places(net: nn.Module) -> list[Place]:
    """Return every place of every parameter, in the order of `named_parameters`; a tied one has one for each name."""
    return [
        Place(f"{path}.{name}" if path else name, parameter, _owner(net, path, module))
        for path, module in net.named_modules(remove_duplicate=False)
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    ]


def _owner(net: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if isinstance(module, ParametrizationList):
        return net.get_submodule(re.sub(r"(^|\.)parametrizations\.[^.]+$", "", path))
    return module


def _last_word(parts: Sequence[str]) -> str:
    return next((part for part in reversed(parts) if not part.isdigit()), "")


def _is_called(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


# --- what a parameter is


def output_heads(places: Iterable[Place]) -> set[Place]:
    """Return which of a net's places, in order, are matrices that give its output, by their names."""
    last: dict[tuple[str, ...], list[Place]] = {}  # the head proper is the last matrix of a module called head
    found: set[Place] = set()
    for place in places:
        if place.parameter.ndim < 2 or _is_called(place.tensor, (*EMBEDDINGS, *ELEMENTWISE)):
            continue
        parts = place.parts
        # Layers that repeat are numbered: blocks.0, or layer1.
        depth = next((index for index, part in enumerate(parts) if part[-1:].isdigit()), len(parts))
        for index, part in enumerate(parts):
            if part in HEADS:
                members = last.setdefault(tuple(parts[: index + 1]), [])
                if members and members[-1].parts != parts:  # weight_norm has two tensors for one weight
                    members.clear()
                members.append(place)
            elif part in HEAD_LISTS and index < depth and len(parts) <= index + 3:
                found.add(place)
        is_layer = place.tensor in ("weight", "weight_v") and depth == len(parts) and not set(parts) & set(HEADS)
        if is_layer and ".".join(["", *parts[:-1]]).endswith(tuple(f".{leaf}" for leaf in HEAD_LEAVES)):
            found.add(place)
    return found.union(*last.values())


def kind_and_blocks(place: Place) -> tuple[Kind, int]:
    """Return how a parameter of two or more axes is a matrix, or several.

    Returns:
        kind: "matrix" is (rows, columns); "convolution" is (first axis, product of the others); "experts" is a stack
            (experts, rows, columns).
        blocks: the equal blocks of rows that are matrices of their own: the groups of a convolution, the gates of an
            LSTM or GRU, the query, key and value of a fused projection.
    """
    p, module = place.parameter, place.module
    if isinstance(module, CONVOLUTIONS) and p.ndim > 2:
        return "convolution", module.groups if p.shape[0] % module.groups == 0 else 1
    if p.ndim > 2:
        called = type(module).__name__ if module is not None else place.layer
        return ("convolution" if p.ndim > 3 or "conv" in called.lower() else "experts"), 1
    if isinstance(module, RECURRENT):
        gates = 4 if isinstance(module, nn.LSTM | nn.LSTMCell) else 3 if isinstance(module, nn.GRU | nn.GRUCell) else 1
        return "matrix", gates if place.tensor.startswith(("weight_ih", "weight_hh")) else 1
    is_fused = (place.layer in FUSED or place.tensor in FUSED) and p.shape[0] == 3 * p.shape[1]
    return "matrix", 3 if is_fused else 1


def adamw_reason(place: Place, heads: set[Place]) -> str | None:
    """Return why AdamW is to take a parameter, given the net's `output_heads`; None if Muon is to."""
    p, module = place.parameter, place.module
    kind = type(module).__name__
    is_known = isinstance(module, KNOWN)
    if p.ndim < 2:
        return "vector"
    if not is_known and "Norm" in kind:
        return "norm"
    is_table = isinstance(module, nn.Embedding | nn.EmbeddingBag) or (not is_known and "Embedding" in kind)
    if is_table or _is_called(place.tensor, EMBEDDINGS):
        return "embedding"
    if _is_called(place.tensor, ELEMENTWISE):
        return "elementwise"
    if place in heads:
        return "output head"
    if not is_known and p.ndim == 2 and (_is_called(place.layer, EMBEDDINGS) or place.parts[:-1] == ["shared"]):
        return "embedding"
    if isinstance(module, nn.Bilinear):
        return "bilinear form"
    return _degenerate(place)


def _degenerate(place: Place) -> str | None:
    """Return why a parameter is not a matrix worth orthogonalizing; None if it is one."""
    p, module = place.parameter, place.module
    kind, blocks = kind_and_blocks(place)
    if kind == "convolution":
        is_module = isinstance(module, CONVOLUTIONS)
        # By its name alone, the first convolution over grey pictures looks like a depthwise one.
        if 1 < module.groups == module.in_channels if is_module else p.shape[1] == 1 < p.shape[0]:
            return "depthwise convolution"
    rows = p.shape[0] // blocks
    # A stack of one is more often a table that is broadcast over the batch (1, T, D) than a single expert.
    sides = (rows, prod(p.shape[1:])) if kind == "convolution" else (rows, *p.shape[1:])
    return f"side of {min(sides)}" if min(sides) < 2 else None
