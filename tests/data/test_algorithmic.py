import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.algorithmic import TASKS, TRAIN_SHARES, build, split

MODULAR = tuple(name for name in TASKS if name != "parity")
ROWS = {"add": 9409, "sub": 9409, "mul": 9409, "div": 9312, "exp": 9409, "gcd": 9409, "parity": 1024}


def divide(a, b, p):
    return next(x for x in range(p) if x * b % p == a)


def power(a, b, p):
    product = 1  # also of no factors, so 0^0 = 1
    for _ in range(b):
        product = product * a % p
    return product


ANSWERS = {
    "add": lambda a, b, p: (a + b) % p,
    "sub": lambda a, b, p: (a - b) % p,
    "mul": lambda a, b, p: (a * b) % p,
    "div": divide,
    "exp": power,
    "gcd": lambda a, b, p: math.gcd(a, b) % p,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(task):
    return zip(task.inputs.tolist(), task.labels.tolist(), strict=True)


@pytest.mark.parametrize("name", MODULAR)
def test_every_label_is_the_answer_of_plain_arithmetic(name):
    for modulus in (2, 7, 13, *(() if name == "div" else (9,))):
        for (a, b, _), label in rows_of(build(name, modulus=modulus, operator_token=False)):
            assert label == ANSWERS[name](a, b, modulus)
    for (a, _, b, _), label in random.Random(0).sample(list(rows_of(build(name))), 300):
        assert label == ANSWERS[name](a, b, 97)


def test_every_parity_label_is_the_number_of_ones_modulo_two():
    for bits in (1, 5, 10):
        task = build("parity", bits=bits)
        strings = set()
        for (*digits, equals), label in rows_of(task):
            assert label == digits.count(1) % 2
            assert set(digits) <= {0, 1}
            assert equals == 2
            strings.add(tuple(digits))
        assert len(strings) == len(task.labels) == 2**bits
        assert (task.vocabulary, task.classes, task.chance) == (3, 2, 0.5)


def test_the_default_tasks_are_those_of_the_protocol():
    assert TRAIN_SHARES == {"add": 0.8, "sub": 0.8, "mul": 0.5, "div": 0.8, "exp": 0.7, "gcd": 0.5, "parity": 0.5}
    for name in TASKS:
        task = build(name)
        assert task.name == name
        assert len(task.inputs) == len(task.labels) == len(task.pairs) == ROWS[name]
        assert {x.dtype for x in (task.inputs, task.labels, task.pairs)} == {torch.int64}
        assert task.chance == Counter(task.labels.tolist()).most_common(1)[0][1] / len(task.labels)
    assert build("gcd").chance == pytest.approx(0.597, abs=5e-4)


@pytest.mark.parametrize("operator_token", [True, False])
def test_a_row_is_both_numbers_once_and_constants_that_are_not_an_answer(operator_token):
    p, places = 7, (0, 2) if operator_token else (0, 1)
    for name in MODULAR:
        task = build(name, modulus=p, operator_token=operator_token)
        pairs = [(row[places[0]], row[places[1]]) for row in task.inputs.tolist()]
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) == {(a, b) for a in range(p) for b in range(p) if name != "div" or b}
        constants = [column for place, column in enumerate(task.inputs.T.tolist()) if place not in places]
        assert [set(column) for column in constants] == ([{p}, {p + 1}] if operator_token else [{p}])
        assert task.vocabulary == p + 1 + operator_token == task.inputs.max() + 1
        assert task.classes == p
        assert 0 <= task.labels.min() <= task.labels.max() < p


def test_rows_share_a_pair_number_only_with_their_mirror_image():
    assert len(build("parity", bits=3).pairs.unique()) == 8
    for name in MODULAR:
        task, together = build(name, modulus=7), {}
        for (a, _, b, _), pair in zip(task.inputs.tolist(), task.pairs.tolist(), strict=True):
            together.setdefault(pair, set()).add(frozenset((a, b)))
        assert all(len(numbers) == 1 for numbers in together.values())
        assert len(together) == len(set.union(*together.values()))


# ---- splits


@given(
    name=st.sampled_from(TASKS),
    modulus=st.sampled_from([2, 3, 5, 7, 11, 13]),
    bits=st.integers(1, 6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
    pairs_together=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_split_has_the_exact_size_and_keeps_pairs_together_when_asked(
    name, modulus, bits, share, seed, pairs_together
):
    task = build(name, modulus=modulus, bits=bits)
    if round(share * len(task.labels)) in (0, len(task.labels)):
        with pytest.raises(ValueError, match="empty side"):
            split(task, share, generator(seed), pairs_together=pairs_together)
        return
    train, validation = split(task, share, generator(seed), pairs_together=pairs_together)
    assert len(train) == round(share * len(task.labels))
    assert sorted(train.tolist() + validation.tolist()) == list(range(len(task.labels)))
    if pairs_together:
        assert not set(task.pairs[train].tolist()) & set(task.pairs[validation].tolist())


@pytest.mark.parametrize("pairs_together", [False, True])
def test_a_split_is_that_of_its_generator_and_takes_every_row_about_as_often(pairs_together):
    task, num_seeds, before = build("mul", modulus=5), 400, torch.get_rng_state()
    counts, found = torch.zeros(len(task.labels)), set()
    for seed in range(num_seeds):
        train = split(task, 0.5, generator(seed), pairs_together=pairs_together)[0]
        counts[train] += 1
        found.add(frozenset(train.tolist()))
    assert (counts / num_seeds - 0.5).abs().max() < 0.18
    assert len(found) > 330
    again = split(task, 0.5, generator(num_seeds - 1), pairs_together=pairs_together)[0]
    assert torch.equal(again, train)
    assert torch.equal(torch.get_rng_state(), before)


# ---- bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("modadd", {}, "'modadd'.*add, sub"),
        ("add", {"modulus": 1}, "modulus=1 "),
        ("gcd", {"modulus": -5}, "modulus=-5 "),
        ("div", {"modulus": 4}, "modulus=4 is not prime"),
        ("div", {"modulus": 91}, "modulus=91 is not prime"),
        ("parity", {"bits": 0}, "bits=0 "),
        ("parity", {"bits": 21}, "bits=21 "),
    ],
)
def test_options_out_of_range_are_refused_by_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_a_share_that_leaves_a_side_empty_is_refused_by_value():
    for share in (0, 1, -0.5, 1.5, 1e-9, 1 - 1e-9):
        with pytest.raises(ValueError, match=f"train_share={share} "):
            split(build("add", modulus=5), share, generator())
