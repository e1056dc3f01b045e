"""Which matrices give a net's output: by their names, and by their shapes where names say nothing."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from muonlab.optim.names import (
    CONVOLUTIONS,
    ELEMENTWISE,
    EMBEDDINGS,
    HEAD_LEAVES,
    HEAD_LISTS,
    HEADS,
    HEADS_OF_ATTENTION,
    RECURRENT,
    is_called,
    is_table,
    is_transposed,
)
from muonlab.optim.places import Place


def output_heads(places: Sequence[Place]) -> set[Place]:
    """Return which of a net's places, in order, are matrices that give its output.

    By name; by shape, a linear layer with an output for each row of an embedding; and if there is none of these and no
    matrix is shared with an embedding, the last linear layer, if its outputs can be those of the net.
    """
    found = _by_name(places)
    found |= _of_vocabularies(places, found)
    return found or _last(places)


def suspects(places: Sequence[Place], heads: set[Place]) -> list[Place]:
    """Return the linear layers of which the last may be a head that was not recognized; none if a head was."""
    matrices = _matrices(places)
    if heads or _is_tied(places) or len(matrices) < 2 or _outputs(matrices[-1]) < 2:
        return []
    return [place for place in matrices if _is_linear(place) and not place.is_repeated]


# --- by name


def _by_name(places: Sequence[Place]) -> set[Place]:
    last: dict[tuple[str, ...], list[Place]] = {}  # the head proper is the last matrix of a module called head
    found: set[Place] = set()
    for place in places:
        is_embedding = isinstance(place.module, nn.Embedding | nn.EmbeddingBag)
        if place.parameter.ndim < 2 or is_embedding or is_called(place.tensor, (*EMBEDDINGS, *ELEMENTWISE)):
            continue
        parts = place.parts
        if any(part.startswith("router") for part in parts):  # whose classifier chooses experts
            continue
        # Layers that repeat are numbered: blocks.0, or layer1.
        depth = next((index for index, part in enumerate(parts) if part[-1:].isdigit()), len(parts))
        for index, part in enumerate(parts):
            if is_called(part, HEADS):
                end = index + (2 if _is_list(place, part) else 1)
                members = last.setdefault(tuple(parts[:end]), [])
                if members and members[-1].parts != parts:  # weight_norm has two tensors for one weight
                    members.clear()
                members.append(place)
            elif is_called(part, HEAD_LISTS) and index < depth and len(parts) <= index + 3:
                found.add(place)
        is_layer = place.tensor in ("weight", "weight_v") and depth == len(parts)
        is_layer &= not any(is_called(part, HEADS) for part in parts)
        is_leaf = ".".join(["", *parts[:-1]]).endswith(tuple(f".{leaf}" for leaf in HEAD_LEAVES))
        is_leaf |= is_called(place.layer, ("*_head",)) and not is_called(place.layer, HEADS_OF_ATTENTION)
        if is_layer and is_leaf:
            found.add(place)
    for head, members in last.items():
        # A square matrix within a head is the layer before one that is shared with an embedding (RoBERTa, ModernBERT).
        is_before = len(members[0].parts) > len(head) + 1 and members[0].parameter.ndim == 2
        if not (is_before and _inputs(members[0]) == _outputs(members[0])):
            found.update(members)
    return found


def _is_list(place: Place, called: str) -> bool:
    """Return whether what is called so on the way to a parameter is a list of modules, each a head (CrossViT)."""
    way = zip(place.name.split("."), place.path[1:], strict=False)
    return any(part == called and isinstance(module, nn.ModuleList) for part, module in way)


# --- by shape


def _of_vocabularies(places: Sequence[Place], named: set[Place]) -> set[Place]:
    """Return the linear layers with an output for each row of an embedding, other than tables of positions.

    A hidden layer may have as many outputs by chance. What tells it: it is repeated, it is square, or another matrix
    takes as many inputs, which may be its outputs; that one excuses the last matrix of the net alone.
    """
    tables = [place for place in places if is_table(place) and not _is_of_positions(place)]
    rows = {place.parameter.shape[0] for place in tables if place.parameter.ndim == 2}
    tied = {id(place.parameter) for place in tables}
    matrices = [place for place in _matrices(places) if id(place.parameter) not in tied]
    inputs = Counter(_inputs(place) for place in matrices if place not in named)
    return {
        place
        for place in matrices
        if _is_linear(place)
        and not place.is_repeated
        and 1 < _outputs(place) != _inputs(place)
        and _outputs(place) in rows
        and (place is matrices[-1] or not inputs[_outputs(place)])
    }


def _last(places: Sequence[Place]) -> set[Place]:
    """Return the last matrix of a net if it is a linear layer whose number of outputs no other one gives or takes.

    The first one may take as many: what comes out is then what goes in, as in an autoencoder. Several that end a net
    side by side, from as many inputs to numbers of outputs that differ, are heads together: actor and critic, tasks.
    """
    matrices = _matrices(places)
    # Names alone do not tell whether an embedding is shared with the head.
    may_be_tied = any(not place.path and is_table(place) and not _is_of_positions(place) for place in places)
    if len(matrices) < 2 or may_be_tied or _is_tied(places):
        return set()
    rest = matrices[1:]
    together: list[Place] = []
    while rest and _may_end(rest[-1]) and (not together or _inputs(rest[-1]) == _inputs(together[0])):
        together.append(rest.pop())
    taken = Counter(_outputs(place) for place in matrices)
    taken.update(_inputs(place) for place in matrices[1:])
    taken.update(place.parameter.shape[-1] for place in places if is_table(place))  # the width of the hidden states
    return {place for place in together if _outputs(place) > 1 and taken[_outputs(place)] == 1}


def _may_end(place: Place) -> bool:
    return _is_linear(place) and not place.is_repeated and _outputs(place) != _inputs(place)


def _matrices(places: Sequence[Place]) -> list[Place]:
    """Return the places that multiply: not tables, vectors, norms and what acts element by element."""
    return [
        place
        for place in places
        if place.parameter.ndim > 1
        and not is_table(place)
        and not is_called(place.tensor, (*EMBEDDINGS, *ELEMENTWISE))
        and not ("Norm" in place.kind and not isinstance(place.module, nn.Linear))
    ]


def _is_linear(place: Place) -> bool:
    module, p = place.module, place.parameter
    if isinstance(module, CONVOLUTIONS):  # of one pixel
        return place.tensor in ("weight", "weight_v") and p.numel() == p.shape[0] * p.shape[1]
    if any(part.startswith("lora_") for part in place.parts):  # an adapter of another layer
        return False
    if p.ndim != 2 or place.tensor not in ("weight", "weight_v") or isinstance(module, RECURRENT):
        return False
    return module is None or isinstance(module, nn.Linear) or is_transposed(place) or "Linear" in place.kind


def _is_tied(places: Sequence[Place]) -> bool:
    tables = {id(place.parameter) for place in places if is_table(place)}
    return any(id(place.parameter) in tables and not is_table(place) for place in places)


def _is_of_positions(place: Place) -> bool:
    return any(is_called(part, ("*pos*", "wpe", "*type*", "*segment*")) for part in place.parts)


def _outputs(place: Place) -> int:
    return place.parameter.shape[1 if is_transposed(place) else 0]


def _inputs(place: Place) -> int:
    return place.parameter.shape[0 if is_transposed(place) else 1]
