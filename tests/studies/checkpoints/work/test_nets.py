"""Nets of a user's own: made, filled, called, tapped, and refused where they do not fit the data."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.measure.taps import choose, pools, tap_shapes
from muonlab.nets.gpt import GPT
from muonlab.nets.resnet import ResNet
from muonlab.studies.checkpoints.config import Group, Texts
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, plain_call, ready
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.checkpoints.work.nets import builder, digest, fill, logits

# -- made and filled -------------------------------------------------------------------------------


def test_a_function_of_a_users_module_makes_the_net(nets, net):
    made = builder(f"{nets.__name__}:build")()
    assert [each.shape for each in made.parameters()] == [each.shape for each in net().parameters()]
    assert isinstance(builder("torch.nn:Identity")(), nn.Identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_nets:bild", "there is no 'bild' in users_nets.*did you mean 'build'"),
        ("users_nets:needs", "needs width, depth; expected a function that returns"),
        ("torch:pi", "net=torch:pi is 3.14159[0-9]*, which cannot be called; expected a function"),
        ("users_nets:fails", "raised RuntimeError: no such width; expected a function"),
        ("users_nets:nothing", "returned a int, not a torch.nn.Module"),
    ],
)
@pytest.mark.usefixtures("nets")
def test_a_function_that_makes_no_net_says_so_in_a_line(name, message):
    with pytest.raises(DataError, match=message):
        builder(name)()


def test_weights_that_do_not_fit_name_five_and_count_the_others(net):
    message = r"^w.pt: the weights do not fit the net, which has no 2.2.0.weight \(16, 16\)"
    with pytest.raises(DataError, match=message):
        fill(net(), net(number=3).state_dict(), "w.pt")
    with pytest.raises(DataError, match=r"and 3 more$") as refused:
        fill(nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))), {}, "w.pt")
    assert str(refused.value).count("not there") == 5


def test_tied_weights_may_be_in_a_file_once():
    def made():
        return nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})

    kept, tied = {"embedding.weight": torch.randn(5, 3)}, made()
    tied["head"].weight = tied["embedding"].weight
    fill(tied, kept, "w")
    assert tied["head"].weight.equal(kept["embedding.weight"])
    with pytest.raises(DataError, match=r"head.weight \(5, 3\), not there"):
        fill(made(), kept, "w")


def test_a_digest_is_that_of_the_modules_and_of_all_weights():
    def made(between: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 2), between, nn.BatchNorm1d(2)).bfloat16()

    net = made(nn.ReLU())
    assert digest(net) == digest(made(nn.ReLU()))
    assert digest(net) != digest(made(nn.Tanh()))
    net[2].num_batches_tracked += 1
    assert digest(net) != digest(made(nn.ReLU()))


def test_logits_are_found_in_what_nets_return():
    expected = torch.randn(2, 3)
    for output in (expected, SimpleNamespace(logits=expected), {"logits": expected}, (expected, None)):
        assert logits(output) is expected
    assert logits(expected.bfloat16()).dtype == torch.float32
    for output in (None, {"loss": expected}, torch.ones(3), ()):
        with pytest.raises(DataError, match=r"the net returned a .*expected logits"):
            logits(output)


# -- called on the data ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given(images, texts):
    """The data of images, of a text, and of labelled texts."""
    return {
        "images": open_data(images),
        "text": open_data(Texts(source=str(texts / "text.txt"), length=16)),
        "labelled": open_data(Texts(examples=str(texts / "examples.txt"), length=100)),
    }


@pytest.fixture
def try_out(given):
    """A function that makes a net ready to be measured on some data."""

    def make(net, data="images", **fields):
        group = Group(name="g", checkpoints=({"path": "x", "sha256": 64 * "0"},), **fields)
        return ready(Candidates(group, "net", [], None, plain_call, given[data]), net, "cpu")

    return make


def test_models_are_together_as_far_as_they_are_small(given):
    sizes = [2**29, 2**29, 1, 2**30, 3 * 2**30, 5, 5]
    members = [Member(str(k), None, nn.Identity, size) for k, size in enumerate(sizes)]
    chunks = Candidates(None, "net", members, None, plain_call, given["images"]).chunks()
    assert [[int(member.checkpoint) for member in chunk] for chunk in chunks] == [[0, 1], [2], [3], [4], [5, 6]]


def test_states_are_pooled_by_their_shape_or_as_given(try_out):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    subject = try_out(net.train())
    assert (subject.taps, subject.pool, subject.rank_pool) == (("0",), {"0": "mean_pixels"}, {"0": "mean_pixels"})
    assert not net.training
    assert try_out(net, pool="flatten").pool == {"0": "flatten"}
    assert try_out(net, taps=("1",)).pool == {"1": "flatten"}
    # Of tokens: means for probes, the last one for ranks.
    language = nn.Sequential(nn.Embedding(257, 8), nn.Linear(8, 8), nn.Linear(8, 256))
    subject = try_out(language, "text", taps=("1",))
    assert (subject.pool, subject.rank_pool) == ({"1": "mean_tokens"}, {"1": "last_token"})
    assert try_out(language, "text", taps=("1",), pool="cls").rank_pool == {"1": "cls"}


@pytest.mark.parametrize(("number", "expected"), [(256, 0), (257, 256)])
def test_padding_that_the_net_has_no_id_for_is_given_another(try_out, given, number, expected):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.body, self.head = nn.Embedding(number, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, tokens):
            self.seen = tokens
            return {"logits": self.head(self.body(self.embedding(tokens)).mean(1)), "loss": None}

    net, inputs = Net(), given["labelled"].judged.test.inputs[:2]
    subject = try_out(net, "labelled")
    assert subject.logits(inputs).shape == (2, 2)
    assert net.seen.equal(inputs.where(inputs != 256, expected))


@pytest.mark.parametrize(
    ("net", "data", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "images", r"10 outputs and the data 3 classes \(0, 1, 2\)"),
        (nn.Linear(7, 3), "images", r"does not take images \(2, 1, 8, 8\); it raised RuntimeError: [^\n]*$"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(128, 3)), "images", "the net returned a Tensor of shape"),
        (nn.Flatten(2), "images", r"gave \(2, 1, 64\) for images \(2, 1, 8, 8\); expected logits \(2, classes\)"),
        (nn.Embedding(300, 8), "text", r"the net has 8 tokens and the tokenizer 256; give tokenizer=PATH"),
        (
            nn.Sequential(nn.Embedding(300, 8), nn.Flatten(), nn.Linear(128, 2)),
            "text",
            r"gave \(2, 2\) for token ids \(2, 16\); .* give examples= alone",
        ),
        (nn.Embedding(50, 300), "text", r"does not take token ids \(2, 16\) up to \d+; it raised IndexError"),
    ],
)
def test_a_net_that_does_not_fit_the_data_is_refused(try_out, net, data, message):
    with pytest.raises(DataError, match=message):
        try_out(net, data)


# Bug: 50,257 tokens were measured on bytes, with an accuracy of 0.
def test_a_net_of_many_tokens_is_not_read_as_bytes_unless_that_is_asked_for(given):
    net = nn.Sequential(nn.Embedding(50257, 4), nn.Linear(4, 4), nn.Linear(4, 50257))
    group = Group(name="g", checkpoints=({"path": "x", "sha256": 64 * "0"},))
    made = Candidates(group, "net", [], None, plain_call, given["text"], assumes_bytes=True)
    with pytest.raises(DataError, match=r"g: the net has 50257 token ids and no tokenizer is given; give tokenizer="):
        ready(made, net, "cpu")
    assert ready(replace(made, assumes_bytes=False), net, "cpu").taps


# -- taps ------------------------------------------------------------------------------------------


class Stage(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(number))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Net(nn.Module):
    """A short list of stages, each a list of blocks, and a pair of heads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.layer1, self.layer2 = Stage(3), Stage(2)
        self.heads = nn.ModuleList(nn.Identity() for _ in range(4))
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer2(self.layer1(self.stem(x)))


PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
EXPERTS = nn.ModuleDict({"h": nn.ModuleList(Stage(8) for _ in range(3)), "head": nn.Linear(4, 2)})  # lists in blocks


@pytest.mark.parametrize(
    ("net", "patterns", "taps"),
    [
        (GPT(9, depth=2, width=8, heads=2), [], "blocks.0 blocks.1"),  # it says its taps
        (ResNet(3, channels=1, width=8, depths=(1, 1), groups=4), [], "blocks.0 blocks.1"),
        (Net(), [], "layer1.layers.0 layer1.layers.1 layer1.layers.2 layer2.layers.0 layer2.layers.1"),
        (EXPERTS, [], "h.0 h.1 h.2"),
        (PLAIN, [], "1 3"),  # modules with parameters, but the head
        (nn.ModuleDict({"net": PLAIN}), [], "net.1 net.3"),
        (nn.ModuleDict({"parts": nn.ModuleList([PLAIN, PLAIN[:3]]), "head": PLAIN[1]}), [], "parts.0 parts.1"),
        (Net(), ["layer?.layers.0", "stem"], "stem layer1.layers.0 layer2.layers.0"),  # in the order of the net
        (Net(), ["layer*"], "layer1 layer2"),
    ],
)
def test_taps_are_those_of_the_net_or_of_its_blocks_or_of_patterns(net, patterns, taps):
    assert choose(net, patterns) == tuple(taps.split())


def test_taps_that_cannot_be_chosen_are_an_error():
    with pytest.raises(ValueError, match="no two modules with parameters"):
        choose(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"taps='layer3' matches no module of the net; nearest: .*layer2"):
        choose(Net(), ["stem", "layer3"])


class Pair(nn.Module):
    def forward(self, x):
        return {"states": (x.double(), x), "none": None}


def test_shapes_are_those_of_the_first_tensor_of_the_modules_that_are_called():
    net = Net()
    found = dict(tap_shapes(net, torch.randn(1, 4)))
    assert found["layer1"] == found["stem"] == (1, 4)
    assert not {"unused", "layer1.layers"} & found.keys()
    assert not any(module._forward_hooks for module in net.modules())
    assert tap_shapes(nn.Sequential(Pair()), torch.ones(2, 3)) == [("0", (2, 3))]


def test_a_shape_that_no_pool_is_for_is_refused():
    shapes = [("d", (2, 1, 1, 1, 1)), ("e", (5, 2, 8))]
    for name, message in (("d", "expected 2, 3 or 4 axes"), ("e", "batch_first=True"), ("f", "does not call it")):
        with pytest.raises(ValueError, match=message):
            pools(shapes, [name], None, num_examples=2)
