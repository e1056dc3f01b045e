import pytest
import torch
from torch import nn

from muonlab.measure.features import gather, stream, taps
from muonlab.measure.spectra import Spectrum


class Tupled(nn.Module):
    """Returns what a block of a language model returns: states first, other things after."""

    def forward(self, x):
        return {"loss": None, "states": [(x + 1, x)]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.ReLU(inplace=True))
        self.tupled = Tupled()
        self.unused = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.head.eval()  # a mode of its own, as of a frozen part

    def forward(self, tokens):
        x = self.block(self.embed(tokens))
        x = self.tupled(x)["states"][0][0]
        return self.head(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(11, (size, 5), generator=generator) for size in (4, 4, 2)]


def test_states_are_those_of_the_net_called_by_hand_in_eval_mode(net, batches):
    assert taps(net) == ["embed", "block", "block.0", "block.1", "block.2", "tupled", "unused", "head"]
    tokens = torch.cat(batches)
    linear = net.block[0](net.embed(tokens)).detach()
    expected = {
        "embed": net.embed(tokens)[:, -1],
        "block.0": linear[:, -1],  # before the ReLU that writes into it
        "block": linear.relu()[:, -1],
        "tupled": (linear.relu() + 1)[:, -1],
    }
    found = gather(net, batches, list(expected), pool="last_token")
    assert list(found) == list(expected)
    for name, states in expected.items():
        assert not found[name].requires_grad
        torch.testing.assert_close(found[name], states.detach())
    for wrap in (lambda x: (x,), lambda x: {"tokens": x}):
        again = gather(net, map(wrap, batches), ["block"], pool="last_token")
        torch.testing.assert_close(again["block"], found["block"])


def test_every_pool_is_what_its_name_says(net, batches):
    states = net.embed(torch.cat(batches)).detach()
    expected = {
        "last_token": states[:, 4],
        "cls": states[:, 0],
        "mean_tokens": sum(states[:, t] for t in range(5)) / 5,
        "flatten": states.reshape(10, 30),
    }
    for pool, values in expected.items():
        torch.testing.assert_close(gather(net, batches, ["embed"], pool=pool)["embed"], values)
    both = gather(net, batches, ["embed", "head"], pool={"embed": "cls", "head": "flatten"})
    assert both["embed"].shape == (10, 6)
    assert both["head"].shape == (10, 15)


def test_pixels_are_averaged_by_channel():
    conv, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.randn(2, 3, 6, 5)
    found = gather(conv, [images], ["0", "1"], pool={"0": "mean_pixels", "1": "flatten"})
    by_hand = torch.stack([torch.stack([channel.sum() / 12 for channel in image]) for image in conv[0](images)])
    torch.testing.assert_close(found["0"], by_hand.detach())
    torch.testing.assert_close(found["1"], conv(images).detach())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_tokens_are_left_out(net, side):
    lengths = torch.tensor([1, 3, 5])
    places = torch.arange(5).expand(3, -1)
    mask = places < lengths[:, None] if side == "right" else places >= 5 - lengths[:, None]
    tokens = torch.where(mask, places + 3, 0)
    net.embed.weight.data[0] = torch.nan  # what stands on padding may be anything
    options = {"forward": lambda model, batch: model(batch["tokens"]), "mask": lambda batch: batch["mask"]}
    batch = [{"tokens": tokens, "mask": mask}]
    last = gather(net, batch, ["embed"], pool="last_token", **options)["embed"]
    mean = gather(net, batch, ["embed"], pool="mean_tokens", **options)["embed"]
    for row in range(3):
        states = net.embed(tokens[row][mask[row]]).detach()
        torch.testing.assert_close(last[row], states[-1])
        torch.testing.assert_close(mean[row], states.mean(0))
    with pytest.raises(ValueError, match="a real token in every row"):
        gather(net, batch, ["embed"], pool="mean_tokens", **options | {"mask": lambda batch: batch["mask"] & False})


def test_a_stream_is_one_pass_that_keeps_nothing(net, batches):
    spectrum, calls = Spectrum(), []
    net.block[0].register_forward_hook(lambda *_: calls.append(1))
    sizes = []
    consumers = {"block": spectrum.update, "embed": lambda states: sizes.append(tuple(states.shape))}
    assert stream(net, iter(batches), consumers, pool="cls") == 10
    assert len(calls) == 3
    assert sizes == [(4, 6), (4, 6), (2, 6)]
    whole = Spectrum()
    whole.update(gather(net, batches, ["block"], pool="cls")["block"])
    assert spectrum.result().raw.ranks.effective_rank == pytest.approx(whole.result().raw.ranks.effective_rank)


def state_of(net):
    return {name: module.training for name, module in net.named_modules()}, [
        len(module._forward_hooks) for module in net.modules()
    ]


class DeliberateError(Exception):
    pass


def fail(*_):
    raise DeliberateError


@pytest.mark.parametrize("where", ["nowhere", "forward", "consumer", "batches"])
def test_modes_and_hooks_are_given_back_whatever_happens(net, batches, where):
    net.train()
    net.block.eval()
    before = state_of(net)
    seen = []
    options = {"forward": fail} if where == "forward" else {}
    consumer = fail if where == "consumer" else lambda states: seen.append(state_of(net))
    source = (fail() for _ in range(3)) if where == "batches" else batches
    if where == "nowhere":
        stream(net, source, {"block": consumer}, pool="cls", **options)
        assert not any(seen[0][0].values())
        assert sum(seen[0][1]) == 1
    else:
        with pytest.raises(DeliberateError):
            stream(net, source, {"block": consumer}, pool="cls", **options)
    assert state_of(net) == before
    assert torch.is_grad_enabled()


def test_states_beyond_the_limit_are_refused_with_what_to_do(net, batches):
    needed = 4 * 6 * 10 * 2
    assert gather(net, batches, ["embed", "block"], pool="cls", max_bytes=needed)
    with pytest.raises(MemoryError, match=r"`stream`.*fewer modules.*max_bytes"):
        gather(net, batches, ["embed", "block"], pool="cls", max_bytes=needed - 1)
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(MemoryError, match="after 4 examples"):
        gather(net, [batches[0]] * 100, ["embed", "block"], pool="cls", max_bytes=10_000)
    assert len(passes) == 1  # the number of batches tells at once
    with pytest.raises(MemoryError):
        gather(net, iter([batches[0]] * 100), ["embed", "block"], pool="cls", max_bytes=10_000)
    assert 1 < len(passes) - 1 < 100


def silent():
    nothing = nn.Sequential(nn.Identity())
    nothing[0].forward = lambda x: None
    return nothing


ROW, MANY, RELU = [torch.zeros(1, 2)], [nn.Identity() for _ in range(61)], nn.ReLU()


@pytest.mark.parametrize(
    ("model", "names", "pool", "error", "message"),
    [
        (
            None,
            ["blok.0"],
            "cls",
            ValueError,
            r"no tap 'blok\.0'; nearest: block\.0.*there are: embed, block, block\.0",
        ),
        (nn.Sequential(*MANY), ["zzz"], "cls", ValueError, "and 21 more"),
        (None, ["embed"], "best", ValueError, r"pool='best'.*last_token, mean_tokens"),
        (
            None,
            ["embed"],
            "mean_pixels",
            ValueError,
            r"tap 'embed' gave \(4, 5, 6\); pool='mean_pixels' expects \(B, C, H,",
        ),
        (None, ["embed", "unused"], "cls", RuntimeError, "did not call unused"),
        (nn.Sequential(RELU, nn.Linear(2, 2), RELU), ["0"], "flatten", ValueError, "called twice"),
        (silent(), ["0"], "flatten", TypeError, "NoneType without a tensor"),
    ],
)
def test_errors_say_what_does_not_fit(net, batches, model, names, pool, error, message):
    with pytest.raises(error, match=message):
        gather(model or net, ROW if model else batches, names, pool=pool)
    with pytest.raises(ValueError, match="no batch"):
        gather(net, [], ["embed"], pool="cls")
