import pytest
import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Texts
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, plain_call, ready
from muonlab.studies.checkpoints.work.material import open_data


@pytest.fixture
def make(images):
    def make(given=None, sizes=(0,), patterns=(), pool=None):
        members = [Member(str(k), None, nn.Identity, size) for k, size in enumerate(sizes)]
        given = given or open_data(images)
        return Candidates("g", None, "net", members, None, patterns, pool, plain_call, given)

    return make


def test_models_are_together_as_far_as_they_are_small(make):
    gigabyte = 2**30
    chunks = make(sizes=(gigabyte // 2, gigabyte // 2, 1, gigabyte, 3 * gigabyte, 5, 5)).chunks()
    assert [[int(member.checkpoint) for member in chunk] for chunk in chunks] == [[0, 1], [2], [3], [4], [5, 6]]


def test_convolutions_are_pooled_over_pixels_and_a_pool_that_is_given_is_taken(make):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    subject = ready(make(), net.train(), "cpu")
    assert (subject.taps, subject.pool, subject.rank_pool) == (("0",), {"0": "mean_pixels"}, {"0": "mean_pixels"})
    assert not net.training
    assert ready(make(pool="flatten"), net, "cpu").pool == {"0": "flatten"}
    assert ready(make(patterns=("1",)), net, "cpu").pool == {"1": "flatten"}


def test_states_of_tokens_are_means_for_probes_and_the_last_for_ranks(make, texts):
    given = open_data(Texts(source=str(texts / "text.txt"), length=16))
    net = nn.Sequential(nn.Embedding(257, 8), nn.Linear(8, 8), nn.Linear(8, 256))
    subject = ready(make(given, patterns=("1",)), net, "cpu")
    assert (subject.pool, subject.rank_pool) == ({"1": "mean_tokens"}, {"1": "last_token"})
    assert ready(make(given, patterns=("1",), pool="cls"), net, "cpu").rank_pool == {"1": "cls"}


def test_padding_that_the_net_has_no_id_for_is_given_another(make, texts):
    given = open_data(Texts(examples=str(texts / "examples.txt"), length=100))

    class Net(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.embedding, self.body, self.head = nn.Embedding(number, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, tokens):
            self.seen = tokens
            return self.head(self.body(self.embedding(tokens)).mean(1))

    for number, expected in ((256, 0), (257, 256)):
        net = Net(number)
        inputs = given.judged.test.inputs[:2]
        ready(make(given), net, "cpu").logits(inputs)
        assert net.seen.equal(inputs.where(inputs != 256, expected))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), r"has 10 outputs and the data 3 classes \(0, 1, 2\)"),
        (nn.Linear(7, 3), r"does not take images \(2, 1, 8, 8\); it raised RuntimeError: [^\n]*$"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(128, 3)), "the net returned a Tensor of shape"),
        (nn.Flatten(2), r"gave \(2, 1, 64\) for images \(2, 1, 8, 8\); expected logits \(2, classes\)"),
    ],
)
def test_nets_that_do_not_fit_images_are_refused(make, net, message):
    with pytest.raises(DataError, match=message):
        ready(make(), net, "cpu")


def test_nets_that_do_not_fit_texts_are_refused(make, texts):
    given = open_data(Texts(source=str(texts / "text.txt"), length=16))
    table = nn.Embedding(300, 8)
    with pytest.raises(DataError, match=r"the net has 8 tokens and the tokenizer 256; give tokenizer=PATH"):
        ready(make(given), table, "cpu")
    pooled = nn.Sequential(table, nn.Flatten(), nn.Linear(128, 2))
    with pytest.raises(DataError, match=r"gave \(2, 2\) for token ids \(2, 16\); .* give examples= alone"):
        ready(make(given), pooled, "cpu")
    with pytest.raises(DataError, match=r"does not take token ids \(2, 16\) up to \d+; it raised IndexError"):
        ready(make(given), nn.Embedding(50, 300), "cpu")


def test_outputs_other_than_tensors_are_understood(make):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 3)

        def forward(self, x):
            return {"logits": self.head(self.body(x.flatten(1))), "loss": None}

    subject = ready(make(), Net(), "cpu")
    assert subject.taps == ("body",)
    assert subject.logits(torch.randn(5, 1, 8, 8)).shape == (5, 3)
