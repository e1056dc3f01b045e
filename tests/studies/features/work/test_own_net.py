"""A net of a user's own, from its name to a report: trained, measured by its layers, transferred."""

import pytest
import torch

from muonlab.jobs import store
from muonlab.studies import features
from muonlab.studies.features.config import Family, OwnNet
from muonlab.studies.features.plan import plan
from muonlab.studies.features.work import job, material
from muonlab.studies.features.work.states import hidden_states, subject
from muonlab.study import dotted

NETS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, inputs, classes, width=6):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in (inputs, width))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.fc(x)

def build(classes, channels, image_size, width=6):
    return Small(channels * image_size**2, classes, width)

class Language(nn.Module):
    def __init__(self, vocabulary, classes, padding, width=8):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, classes or vocabulary)
        self.padding, self.classes = padding, classes

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        if self.classes:
            is_real = tokens != self.padding
            x = (x * is_real[..., None]).sum(1) / is_real.sum(1, keepdim=True)
        return self.head(x)

def wants(classes, depth): ...
def breaks(classes): raise KeyError("no")
def none(classes): return 3
def shallow(classes, image_size): return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, classes))
def wide(classes, image_size): return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, 9), nn.Linear(9, 9))
def deaf(classes): return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, classes))

def twice(classes, image_size):
    net = build(classes, 1, image_size)
    net.layers[1] = net.layers[0] = nn.Linear(image_size**2, image_size**2)
    net.fc = nn.Linear(image_size**2, classes)
    net.taps = ["layers.0"]
    return net
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory, make_family):
    """A function that makes a family of one of these nets, with data as of a built-in one."""
    path = tmp_path_factory.mktemp("own") / "nets.py"
    path.write_text(NETS)

    def make(name, kind="cnn", **arguments):
        net = OwnNet(call=dotted.find("net", f"{path}:{name}"), arguments=arguments)
        return Family(net=net, data=make_family(kind).data)

    return make


def test_from_settings_to_a_report_with_every_measure(own, tmp_path):
    name = own("build").net.call.name
    settings = {"net": name, "net.width": 5, "optimizers": "muon", "budget": 4, "looks": 1, "seeds": 1}
    less = {"measure.examples": 10, "measure.path_examples": 5, "images.transfer_per_class": 10}
    asked = plan("tiny", settings | less | {"transfer.budget": 2, "transfer.looks": 1})
    features.begin(asked, tmp_path)
    results = store.Results(tmp_path)
    while todo := [one for one in features.jobs_of(asked, results.refresh()) if one.id not in results]:
        for one in todo:
            store.add(tmp_path, one)
            job.run(config=one.config, folder=str(tmp_path / one.id), compile="never")
    findings = features.analyse(tmp_path)
    titles = {section.title for section in findings.sections}
    assert {"Claims", "Robustness", "Margins by layer", "Ranks by layer", "Transfer"} <= titles
    assert ("nets and data", "build on digits (") in [(key, text[:17]) for key, text in findings.verdict.scope]
    (measured,) = [r for r in results.values() if "controls" in r]
    assert [layer["tap"] for layer in measured["models"][0]["layers"]] == ["layers.0", "layers.1"]
    assert measured["models"][0]["layers"][1]["width"] == 5


def test_the_head_alone_is_drawn_again_for_other_classes(own, make_pretrain, make_state, run, tmp_path, monkeypatch):
    family = own("build")
    run(make_pretrain(family), tmp_path / "pretrained")
    assert material.read(family).head(material.read(family).judged) == "fc"
    seen = {}

    def stop(engine, *_, **__):
        seen.update(engine.tensors())
        raise KeyboardInterrupt

    monkeypatch.setattr(job.transferring, "fine_tune", stop)
    options = {"optimizer": make_pretrain().optimizer, "training": make_pretrain().training, "rates": (0.1,)}
    states = (make_state(steps=(6, 6)),)
    config = features.jobs.Transfer(
        family=family, task="classes", weights="pretrained", states=states, seeds=(0, 1), **options
    )
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "transferred")
    kept = job.pretraining.weights.load(tmp_path / "pretrained", 6)
    for key, tensor in kept.items():
        assert tensor.equal(seen[key]) == ("fc" not in key), key


def test_hidden_states_are_those_of_a_forward_hook(own):
    found = material.read(own("build"))
    net = found.build(found.judged).eval()
    inputs, seen = found.judged.test.inputs[:5], []
    net.get_submodule("layers.1").register_forward_hook(lambda module, taken, output: seen.append(output.detach()))
    measured = subject(net, found)
    seen.clear()
    states = hidden_states(measured, inputs, measured.pool)
    assert list(states) == ["layers.0", "layers.1"]
    torch.testing.assert_close(states["layers.1"], seen[0])


def test_a_language_model_of_ones_own_predicts_tokens_and_tells_classes_apart(own):
    family = own("Language", "gpt")
    job.check(family=family.model_dump(mode="json"), tasks=["classes", "language"])
    found = material.read(family)
    measured = subject(found.build(found.judged).eval(), found)
    assert measured.taps == ("blocks.0", "blocks.1")
    assert (measured.pool["blocks.1"], measured.rank_pool["blocks.1"]) == ("mean_tokens", "last_token")
    assert found.build(found.transfers["classes"])(found.measured.test.inputs[:3]).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wants", r"needs depth; give net.depth=VALUE; the data have classes .5., channels .1., image_size .8."),
        ("breaks", "raised KeyError: 'no' for {'classes': 5"),
        ("none", r"returned a int; expected a torch.nn.Module"),
        ("wide", r"returned \(2, 9\) for inputs \(2, 1, 8, 8\); expected logits \(2, 5\)"),
        ("deaf", r"does not read images \(2, 1, 8, 8\): RuntimeError"),
        ("shallow", "since the net has no two modules with parameters, .*; give the net an attribute taps"),
        ("twice", "no hidden states can be measured, since tap 'layers.0' was called twice"),
    ],
)
def test_a_net_that_does_not_fit_is_one_message_before_anything_runs(own, name, message):
    with pytest.raises(ValueError, match=message) as error:
        job.check(family=own(name).model_dump(mode="json"), tasks=["classes"])
    assert str(error.value).startswith(f"{name} on digits: net=")
    assert f"nets.py:{name}" in str(error.value)
