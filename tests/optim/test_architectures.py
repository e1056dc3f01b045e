"""Where the parameters of real architectures go, by a table: architectures.json.

For every parameter of two and more axes it says what must become of it, in the words of `split_params`' table, and
under "because" why. Numbers in names are stars. A layer that a new version of a library renames fails here.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from muonlab.optim.split import split_params
from muonlab.optim.table import why

TABLE = json.loads(Path(__file__).with_name("architectures.json").read_text())
# Routed by names alone: these look like depthwise convolutions there, as they have one input channel.
GREY = {"wav2vec2.feature_extractor.conv_layers.*.conv.weight"}


def starred(name: str) -> str:
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def found(net) -> dict[str, str | list[str]]:
    """Return what becomes of the parameters of two and more axes; of some that differ in numbers alone, a list."""
    each: dict[str, list[str]] = {}
    for route in split_params(net).routes:
        if route.parameter.ndim < 2:
            assert (route.rule, route.reason.removesuffix(", tied")) == ("adamw", "vector"), route.name
        elif (what := f"{route.rule}: {why(route)}") not in each.setdefault(starred(route.name), []):
            each[starred(route.name)].append(what)
    return {name: one[0] if len(one) == 1 else one for name, one in each.items()}


def make(library: str, name: str):
    config = TABLE[library][name]["config"]
    with torch.device("meta"):
        if library == "timm":
            timm = pytest.importorskip("timm", exc_type=ImportError)
            return timm.create_model(name, **config)
        transformers = pytest.importorskip("transformers")
        kind = getattr(transformers, name.split(",")[0])
        return kind(kind.config_class(**config))


@pytest.mark.parametrize(
    ("library", "name"), [(each, name) for each in ("transformers", "timm") for name in TABLE[each]]
)
def test_an_architecture_is_routed_as_the_table_says(library, name):
    net = make(library, name)
    assert found(net) == TABLE[library][name]["parameters"]
    by_model = {route.name: route.rule for route in split_params(net).routes}
    by_names = {route.name: route.rule for route in split_params(net.named_parameters()).routes}
    assert {each for each, rule in by_names.items() if rule != by_model[each]} <= {
        each for each in by_model if starred(each) in GREY
    }


def test_the_table_has_forty_architectures_and_says_why():
    entries = [entry for library in ("transformers", "timm") for entry in TABLE[library].values()]
    assert len(TABLE["transformers"]) >= 40
    said = [what for entry in entries for what in entry["parameters"].values()]
    flat = {each for what in said for each in ([what] if isinstance(what, str) else what)}
    assert flat == set(TABLE["because"])
