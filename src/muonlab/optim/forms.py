"""How a parameter is a matrix, or several, as the module that holds it says: axes, blocks, and what the blocks are."""

from dataclasses import dataclass

from torch import Tensor, nn

from muonlab.optim.attention import ByHead, fused_rows, is_fused, is_pair
from muonlab.optim.layout import Kind
from muonlab.optim.names import CONVOLUTIONS, RECURRENT, is_transposed
from muonlab.optim.places import Place

# Gate and up projection of a gated feed-forward layer, one above the other; so is what has both words in its name.
GATED = frozenset(["gate_up_proj", "gate_up", "gate_and_up_proj", "up_gate_proj", "w13", "w12", "w1_w3", "weights_in"])
# The same by layers that are called so in certain classes alone: name, beginning of the class's name.
GATED_IN = (
    ("Wi", "ModernBert"),
    ("input_linear", "Granite"),
    ("input_linear", "JetMoe"),
    ("fc1", "GluMlp"),  # timm, and SwiGLUPacked of it
    ("proj", "GEGLU"),  # diffusers, as the next
    ("proj", "SwiGLU"),
)
BY_HEAD = "by head"
GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}


@dataclass(frozen=True)
class Form:
    """How a parameter of two or more axes is a matrix, or several.

    Attributes:
        kind: "matrix" is (rows, columns); "convolution" is (first axis, product of the others); "experts" is a stack
            (experts, rows, columns); else a letter for each axis (`muonlab.optim.layout.Kind`).
        blocks: what is orthogonalized apart, as `split` of `muonlab.optim.layout.layout`; 1 for the whole.
        said: what the blocks are, in a few words.
    """

    kind: Kind
    blocks: int | tuple = 1
    said: str = ""


def form(place: Place, by_head: ByHead | None = None) -> Form:
    """Return the form of a parameter."""
    p, module = place.parameter, place.module
    if isinstance(module, CONVOLUTIONS) and p.ndim > 2:
        return Form("convolution", module.groups if p.shape[0] % module.groups == 0 else 1)
    if isinstance(module, RECURRENT):
        is_gated = place.tensor.startswith(("weight_ih", "weight_hh"))
        return Form("matrix", next((n for kind, n in GATES.items() if is_gated and isinstance(module, kind)), 1))
    if p.ndim > 2:
        return _stack(place)
    kind, rows, columns = ("cr", *reversed(p.shape)) if is_transposed(place) else ("matrix", *p.shape)
    if _is_gated(place) and rows % 2 == 0:
        return Form(kind, 2, "gate, up")
    if experts := _flattened_experts(place):
        return Form(kind, experts, "experts")
    fused = fused_rows(place, rows, columns)
    by = by_head(place, rows, fused) if by_head is not None else None
    if by is not None:
        return Form(kind, by, BY_HEAD)
    if fused is not None and fused.is_apart:
        return Form(kind, fused.by_part, fused.said)
    if is_fused(place):
        return Form(kind, 1, "the rows of query, key and value are not known: split=")
    if is_pair(place, rows, columns):
        return Form(kind, 1, "the rows of key and value are not known: split=")
    return Form(kind)


def _is_gated(place: Place) -> bool:
    layers = {place.layer, place.tensor}
    if layers & GATED or any({"gate", "up"} <= set(layer.lower().split("_")) for layer in layers):
        return True
    classes = [type(module).__name__ for module in (place.module, *place.around)]
    return any(layer in layers and any(each.startswith(begin) for each in classes) for layer, begin in GATED_IN)


def _stack(place: Place) -> Form:
    """Return the form of a parameter of three or more axes that no convolution of torch holds."""
    if _is_convolution(place):
        return Form("convolution")
    axes = "s" * (place.parameter.ndim - 2)
    is_swapped = _holds_inputs_first(place)
    kind = f"{axes}cr" if is_swapped else "experts"
    rows = place.parameter.shape[-1 if is_swapped else -2]
    if not _is_gated(place) or rows % 2:
        return Form(kind)
    if getattr(place.module, "is_concatenated", True):
        return Form(kind, 2, "gate, up")
    return Form(kind, (rows // 2, (1, 1)), "gate, up, row by row")


def _is_convolution(place: Place) -> bool:
    p, module = place.parameter, place.module
    if "conv" in (place.kind if module is not None else place.layer).lower():
        return True
    if p.ndim == 3:
        return False
    # A kernel is small. Matrices of a stack are larger, or its parameter has a name of its own.
    is_weight = place.tensor in ("weight", "weight_v", "kernel", "filter")
    return is_weight and max(p.shape[2:]) <= 32


def _holds_inputs_first(place: Place) -> bool:
    """Return whether experts are (experts, in, out): by their class, or by the shapes of both their matrices."""
    module = place.module
    if isinstance(flag := getattr(module, "is_transposed", None), bool):
        return flag
    up = next((getattr(module, name) for name in GATED if isinstance(getattr(module, name, None), Tensor)), None)
    down = getattr(module, "down_proj", None)
    if not isinstance(up, Tensor) or not isinstance(down, Tensor) or not up.ndim == down.ndim > 2:
        return False
    return up.shape[-1] == 2 * down.shape[-2] and up.shape[-2] == down.shape[-1]


def _flattened_experts(place: Place) -> int:
    """Return how many experts lie one above the other in a matrix (experts * rows, columns); 0 for other matrices."""
    module = place.module
    if not type(module).__name__.startswith("DbrxExpert") or place.tensor not in ("w1", "v1", "w2"):
        return 0
    number = getattr(module, "moe_num_experts", 0)
    return number if number and place.parameter.shape[0] % number == 0 else 0
