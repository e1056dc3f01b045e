import math

import pytest
import torch

from muonlab.nets.dropout import Dropout, halves_of_mix, mix

NUM = 100_000


def kept(rate, key, *shape, layer=0):
    """Return the mask as bools."""
    return Dropout(rate, layer)(torch.ones(shape), torch.tensor(key)) != 0


def correlation(one, other):
    return torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1].item()


def words():
    """Return 32-bit integers at random and at the ends of their range."""
    x = torch.randint(2**32, (1000,), generator=torch.Generator().manual_seed(0))
    return torch.cat([x, torch.arange(100), torch.tensor([2**31 - 1, 2**31, 2**32 - 1])])


# ---- the hash


def test_mix_is_lowbias32():
    def lowbias32(x):  # Wellons' function on a Python integer
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    x = words()
    assert mix(x).tolist() == [lowbias32(value) for value in x.tolist()]
    assert len(mix(torch.arange(2**18) * 2**14).unique()) == 2**18
    low, high = halves_of_mix((x - (x >> 31 << 32)).int())
    assert torch.equal(low, (mix(x) & 0xFFFF).int())
    assert torch.equal(high, (mix(x) >> 16).int())


def test_every_input_bit_flips_about_half_of_all_answers_at_every_output_bit():
    x = torch.randint(2**32, (2000, 1), generator=torch.Generator().manual_seed(0))
    flipped = mix(x) ^ mix(x ^ (1 << torch.arange(32)))  # (inputs, input bits)
    rates = (flipped.unsqueeze(-1) >> torch.arange(32) & 1).double().mean(dim=0)  # (input bits, output bits)
    assert ((rates - 0.5).abs() < 6 * 0.5 / math.sqrt(2000)).all()


# ---- the noise


def kept_by_definition(rate, key, num, layer):
    """Return the mask as the integers of the definition, 64 bits wide, make it."""
    half = (num + 1) // 2
    bits = mix(torch.arange(half) ^ mix(key ^ mix(torch.tensor(layer + 1))))
    return torch.cat([bits & 0xFFFF, bits >> 16])[:num] >= round(rate * 2**16)


@pytest.mark.parametrize("rate", [2**-16, 0.2, 0.9])
def test_the_noise_is_that_of_its_definition_bit_by_bit(rate):
    keys = torch.tensor([0, 12345, 2**31 - 1, 2**31, 2**32 - 1])
    for shape in [(39_999,), (7, 11, 13), (1,)]:
        together = torch.func.vmap(lambda key, shape=shape: Dropout(rate, 3)(torch.ones(shape), key))(keys)
        for key, y in zip(keys, together, strict=True):
            expected = kept_by_definition(rate, key, math.prod(shape), layer=3).view(shape)
            assert torch.equal(y != 0, expected)
            assert torch.equal(Dropout(rate, 3)(torch.ones(shape), key) != 0, expected)
            assert torch.equal(Dropout(rate, 3)(torch.ones(shape, dtype=torch.bfloat16), key) != 0, expected)


@pytest.mark.parametrize("key", [0, 2**32 - 1])
def test_the_share_of_zeros_is_the_rate_and_the_mean_is_kept(key):
    num = 200_001
    for rate in (0.01, 0.9):
        deviation = math.sqrt(rate * (1 - rate) / num)
        y = Dropout(rate, 3)(torch.ones(num, dtype=torch.float64), torch.tensor(key))
        assert (y == 0).double().mean().item() == pytest.approx(rate, abs=5 * deviation + 2**-17)
        assert y.mean().item() == pytest.approx(1, abs=5 * deviation / (1 - rate) + 2**-16)


@pytest.mark.parametrize(
    ("key", "layer", "other_key", "other_layer"),
    [(0, 0, 1, 0), (0, 0, 2**16, 0), (0, 0, 2**31, 0), (9, 0, 9, 1), (9, 0, 9, 11), (1, 2, 2, 1)],
)
def test_noise_of_other_keys_and_layers_is_unrelated(key, layer, other_key, other_layer):
    found = correlation(kept(0.5, key, NUM, layer=layer), kept(0.5, other_key, NUM, layer=other_layer))
    assert abs(found) < 5 / math.sqrt(NUM)


def test_noise_of_neighbouring_keys_is_not_the_same_noise_rearranged():
    assert len({kept(0.5, key, 2**12).sum().item() for key in range(20)}) > 5


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_entries_of_one_mask_are_unrelated(rate):
    mask = kept(rate, 3, NUM)
    for distance in (1, 2, 16, 256, NUM // 2):  # at NUM / 2 both entries come from one hash
        assert abs(correlation(mask[distance:], mask[:-distance])) < 5 / math.sqrt(NUM - distance)


def test_one_entry_over_consecutive_keys_drops_at_the_rate_and_without_memory():
    drops = torch.func.vmap(lambda key: Dropout(0.2, 0)(torch.ones(4), key))(torch.arange(20_000)) == 0
    assert (drops.double().mean(dim=0) - 0.2).abs().max() < 5 * 0.4 / math.sqrt(20_000)
    for entry in drops.T:
        assert abs(correlation(entry[1:], entry[:-1])) < 5 / math.sqrt(19_999)


# ---- the layer


def test_entries_and_gradients_are_zero_or_divided_by_the_share_that_is_kept():
    x = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = Dropout(0.25, 0)(x, torch.tensor(5))
    y.sum().backward()
    torch.testing.assert_close(y, torch.where(y == 0, 0, x / 0.75))
    torch.testing.assert_close(x.grad, (y != 0) / 0.75, check_dtype=False)


def test_along_a_shared_axis_all_entries_have_the_noise_of_an_axis_of_one():
    x, key = torch.ones(5, 4, 7), torch.tensor(3)
    y = Dropout(0.5, 0, shared_axis=-2)(x, key)
    assert torch.equal(y, Dropout(0.5, 0)(x[:, :1], key).expand_as(x))


def test_eval_mode_and_rate_zero_return_the_input_itself():
    x = torch.ones(10)
    for key in (None, torch.tensor(1)):
        assert Dropout(0.5, 0).eval()(x, key) is x
        assert Dropout(0.0, 0)(x, key) is x


def test_a_key_leaves_the_global_generator_alone_and_without_one_the_noise_comes_from_it():
    layer, x, before = Dropout(0.5, 0), torch.ones(100), torch.get_rng_state()
    layer(x, torch.tensor(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    first, second = layer(x, None), layer(x, None)
    torch.manual_seed(0)
    assert torch.equal(layer(x, None), first)
    assert not torch.equal(first, second)
