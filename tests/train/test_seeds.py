"""Random streams of the members, and the weights that nets draw from them."""

import itertools

import pytest
import torch
from torch import nn

from muonlab.nets.transformer import Transformer
from muonlab.train.modules import drawn, takes_key
from muonlab.train.seeds import fold_in, forked, generator, streams


def test_streams_differ_by_seed_purpose_and_index_and_are_fixed_for_all_time():
    streams = [fold_in(*key) for key in itertools.product(range(20), ("init", "split", "batches"), range(20))]
    assert len(set(streams)) == len(streams)
    assert all(0 <= stream < 2**63 for stream in streams)  # what a torch generator accepts
    # A change here changes every result: raise RESULTS_VERSION with it.
    assert fold_in(0, "init") == 900553517829159482


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    first, again = (torch.rand(5, generator=generator(3, "init")) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_lent_generator_repeats_by_seed_purpose_and_index_and_is_given_back():
    def drawn(*stream):
        with forked(*stream):
            return torch.rand(5)

    before = torch.get_rng_state()
    first = drawn(3, "forward", 7)
    assert torch.equal(first, drawn(3, "forward", 7))
    assert not any(
        torch.equal(first, drawn(*other)) for other in [(4, "forward", 7), (3, "init", 7), (3, "forward", 8)]
    )
    with pytest.raises(ZeroDivisionError), forked(3, "forward", 7):
        torch.rand(1).div(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_streams_of_seeds_follow_from_what_is_trained():
    own = streams({"task": "add", "net": [1, 2]}, (0, 1, 2))
    assert len(set(own)) == 3
    assert streams({"net": [1, 2], "task": "add"}, (2, 0)) == (own[2], own[0])
    assert not set(own) & set(streams({"task": "sub", "net": [1, 2]}, (0, 1, 2)))


# ---- weights


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


class Own(nn.Module):
    """A net with an initialisation of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        nn.init.orthogonal_(self.linear.weight)


NETS = {
    "with a generator": Transformer(5, 5, depth=1, width=8, heads=2, ff_width=8),
    "torch's": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1)),
    "a function": Own,
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_weights_follow_from_the_seed_and_the_global_generator_stays(net):
    before = torch.get_rng_state()
    first, other, again = (weights(drawn(net, seed, torch.float64)) for seed in (3, 4, 3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.dtype == torch.float64 for p in first)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_a_function_keeps_the_nets_own_initialisation():
    weight = drawn(Own, 0, torch.float32).linear.weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(3))


def test_a_function_of_a_net_with_a_generator_gives_the_weights_of_the_net():
    net = NETS["with a generator"]
    built = drawn(lambda: Transformer(5, 5, depth=1, width=8, heads=2, ff_width=8), 3, torch.float64)
    assert all(map(torch.equal, weights(built), weights(drawn(net, 3, torch.float64))))


def test_torchs_modules_forget_what_they_were_trained_to_be():
    net = nn.Sequential(nn.BatchNorm1d(4))
    net[0].running_mean.fill_(7)
    nn.init.constant_(net[0].weight, 7)
    net = drawn(net, 0, torch.float32)
    assert torch.equal(net[0].running_mean, torch.zeros(4))
    assert torch.equal(net[0].weight, torch.ones(4))


@pytest.mark.parametrize(
    ("net", "place"),
    [
        (Own(), "the net, a Own"),
        (nn.Sequential(nn.ReLU(), Own()), "its part 1, a Own"),
        (nn.Sequential(nn.MultiheadAttention(4, 1)), "its part 0, a MultiheadAttention"),
    ],
)
def test_a_module_whose_constructor_may_draw_in_its_own_way_is_refused(net, place):
    with pytest.raises(
        ValueError, match=f"{place}, has no reset_parameters.*; expected a function that builds the net"
    ):
        drawn(net, 0, torch.float32)


def test_only_a_forward_with_a_key_takes_one():
    assert takes_key(NETS["with a generator"])
    assert not takes_key(NETS["torch's"])
