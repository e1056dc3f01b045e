"""Which parameter goes where: Muon is for the hidden matrices, AdamW for all else.

`roles` is the coarse division that the studies compare. `adamw_reason` is the fine one, for any net, by module types,
names and shapes; `muonlab.optim.split.split_params` is its door and says what it does.
"""

from typing import Literal

from torch import nn

from muonlab.optim.forms import form
from muonlab.optim.layout import layout
from muonlab.optim.names import CONVOLUTIONS, ELEMENTWISE, KNOWN, NO_FACTORS, is_called, is_table
from muonlab.optim.places import Place

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


def adamw_reason(place: Place, heads: set[Place]) -> str | None:
    """Return why AdamW is to take a parameter, given the net's `output_heads`; None if Muon is to."""
    module = place.module
    if place.parameter.ndim < 2:
        return "vector"
    if not isinstance(module, KNOWN) and "Norm" in place.kind:
        return "norm"
    if place in heads:
        return "output head"
    if is_table(place):
        return "embedding"
    if is_called(place.tensor, ELEMENTWISE) or any(is_called(part, NO_FACTORS) for part in place.parts[-3:]):
        return "elementwise"
    if isinstance(module, nn.Bilinear):
        return "bilinear form"
    return _degenerate(place)


def _degenerate(place: Place) -> str | None:
    """Return why a parameter is not a matrix worth orthogonalizing; None if it is one."""
    p, module, seen = place.parameter, place.module, form(place)
    if seen.kind == "convolution":
        is_module = isinstance(module, CONVOLUTIONS)
        # By its name alone, the first convolution over grey pictures looks like a depthwise one.
        if 1 < module.groups == module.in_channels if is_module else p.shape[1] == 1 < p.shape[0]:
            return "depthwise convolution"
    if 0 in p.shape:
        return "side of 0"
    found = layout(p.shape, seen.kind, seen.blocks)
    # A stack of one is more often a table that is broadcast over the batch (1, T, D) than a single expert.
    stacked = [size for size, axis in zip(p.shape, found.axes, strict=True) if axis == "s"]
    side = min(*found.blocks, found.columns, *stacked)
    return f"side of {side}" if side < 2 else None
