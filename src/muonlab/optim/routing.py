"""Which parameter goes where: Muon is for the hidden matrices, AdamW for all else."""

from typing import Literal

from torch import nn

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
