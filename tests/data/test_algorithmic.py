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
PRIMES = [2, 3, 5, 7, 11, 13]


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
@pytest.mark.parametrize("modulus", [2, 7, 13])
def test_every_label_is_the_answer_of_plain_arithmetic(name, modulus):
    for (a, b, _), label in rows_of(build(name, modulus=modulus, operator_token=False)):
        assert label == ANSWERS[name](a, b, modulus)


@pytest.mark.parametrize("name", MODULAR)
def test_labels_at_97_are_the_answers_of_plain_arithmetic(name):
    for (a, _, b, _), label in random.Random(0).sample(list(rows_of(build(name))), 300):
        assert label == ANSWERS[name](a, b, 97)


@pytest.mark.parametrize("bits", [1, 2, 5, 10])
def test_every_parity_label_is_the_number_of_ones_modulo_two(bits):
    task = build("parity", bits=bits)
    strings = set()
    for (*digits, equals), label in rows_of(task):
        assert label == digits.count(1) % 2
        assert set(digits) <= {0, 1}
        assert equals == 2
        strings.add(tuple(digits))
    assert len(strings) == len(task.labels) == 2**bits
    assert (task.vocabulary, task.classes, task.chance) == (3, 2, 0.5)


@pytest.mark.parametrize(
    ("name", "a", "b", "answer"),
    [("exp", 0, 0, 1), ("exp", 0, 5, 0), ("exp", 5, 0, 1), ("gcd", 0, 0, 0), ("gcd", 0, 5, 5), ("gcd", 6, 4, 2)],
)
def test_answers_at_the_corners(name, a, b, answer):
    task = build(name, modulus=7)
    row = (task.inputs[:, 0] == a) & (task.inputs[:, 2] == b)
    assert task.labels[row].tolist() == [answer]


@pytest.mark.parametrize("name", TASKS)
def test_the_default_tasks_have_the_rows_of_the_protocol(name):
    task = build(name)
    assert task.name == name
    assert len(task.inputs) == len(task.labels) == len(task.pairs) == ROWS[name]
    assert {x.dtype for x in (task.inputs, task.labels, task.pairs)} == {torch.int64}


def test_train_shares_are_those_of_the_protocol():
    assert TRAIN_SHARES == {"add": 0.8, "sub": 0.8, "mul": 0.5, "div": 0.8, "exp": 0.7, "gcd": 0.5, "parity": 0.5}


@pytest.mark.parametrize("name", MODULAR)
@pytest.mark.parametrize("operator_token", [True, False])
def test_a_row_is_both_numbers_once_and_constants_that_are_no_answer(name, operator_token):
    p = 7
    task = build(name, modulus=p, operator_token=operator_token)
    places = (0, 2) if operator_token else (0, 1)
    pairs = [(row[places[0]], row[places[1]]) for row in task.inputs.tolist()]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(a, b) for a in range(p) for b in range(p) if name != "div" or b}
    constants = [column for place, column in enumerate(task.inputs.T.tolist()) if place not in places]
    assert [set(column) for column in constants] == ([{p}, {p + 1}] if operator_token else [{p}])
    assert task.vocabulary == p + 1 + operator_token == task.inputs.max() + 1
    assert task.classes == p
    assert 0 <= task.labels.min() <= task.labels.max() < p


@pytest.mark.parametrize("name", TASKS)
def test_chance_is_the_share_of_the_commonest_label(name):
    task = build(name)
    assert task.chance == Counter(task.labels.tolist()).most_common(1)[0][1] / len(task.labels)


def test_chance_of_gcd_at_97_is_that_of_the_protocol():
    assert build("gcd").chance == pytest.approx(0.597, abs=5e-4)


@pytest.mark.parametrize("name", TASKS)
def test_rows_share_a_pair_number_only_with_their_mirror_image(name):
    task = build(name, modulus=7, bits=3)
    together = {}
    for row, pair in zip(task.inputs.tolist(), task.pairs.tolist(), strict=True):
        together.setdefault(pair, []).append(row)
    if name == "parity":
        assert all(len(rows) == 1 for rows in together.values())
        return
    for rows in together.values():
        assert len({frozenset((a, b)) for a, _, b, _ in rows}) == 1
    assert len(together) == len({frozenset((a, b)) for a, _, b, _ in task.inputs.tolist()})


@pytest.mark.parametrize("modulus", [1, 0, -5])
@pytest.mark.parametrize("name", MODULAR)
def test_a_modulus_below_two_is_refused_by_value(name, modulus):
    with pytest.raises(ValueError, match=f"modulus={modulus} "):
        build(name, modulus=modulus)


@pytest.mark.parametrize("modulus", [4, 9, 15, 49, 91])
def test_division_refuses_a_composite_modulus_by_value(modulus):
    with pytest.raises(ValueError, match=f"modulus={modulus} is not prime"):
        build("div", modulus=modulus)


@pytest.mark.parametrize("modulus", PRIMES)
def test_division_takes_every_prime(modulus):
    assert len(build("div", modulus=modulus).labels) == modulus * (modulus - 1)


@pytest.mark.parametrize("modulus", [4, 6, 9])
@pytest.mark.parametrize("name", [name for name in MODULAR if name != "div"])
def test_the_other_tasks_take_a_composite_modulus(name, modulus):
    for (a, _, b, _), label in rows_of(build(name, modulus=modulus)):
        assert label == ANSWERS[name](a, b, modulus)


@pytest.mark.parametrize("bits", [-1, 0, 21])
def test_bits_out_of_range_are_refused_by_value(bits):
    with pytest.raises(ValueError, match=f"bits={bits} "):
        build("parity", bits=bits)


def test_the_longest_parity_builds():
    task = build("parity", bits=20)
    assert task.inputs.shape == (2**20, 21)
    assert task.labels[-1] == 0  # twenty ones
    assert task.labels.sum() == 2**19


def test_an_unknown_task_is_refused_by_name_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'modadd'.*add, sub"):
        build("modadd")


def check_split(task, share, train, validation):
    assert len(train) == round(share * len(task.labels))
    assert sorted(train.tolist() + validation.tolist()) == list(range(len(task.labels)))


@pytest.mark.parametrize("pairs_together", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_the_default_split_covers_all_rows_once_in_the_same_size_for_every_seed(name, pairs_together):
    task = build(name)
    for seed in range(3):
        sides = split(task, TRAIN_SHARES[name], generator(seed), pairs_together=pairs_together)
        check_split(task, TRAIN_SHARES[name], *sides)


@pytest.mark.parametrize("pairs_together", [False, True])
def test_a_split_is_that_of_its_generator(pairs_together):
    def train_rows(seed):
        return set(split(task, 0.5, generator(seed), pairs_together=pairs_together)[0].tolist())

    task = build("add", modulus=13)
    before = torch.get_rng_state()
    assert train_rows(1) == train_rows(1)
    assert len({frozenset(train_rows(seed)) for seed in range(10)}) == 10
    assert torch.equal(torch.get_rng_state(), before)


@given(
    name=st.sampled_from(TASKS),
    modulus=st.sampled_from(PRIMES),
    bits=st.integers(1, 6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
    pairs_together=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_split_has_the_exact_size_and_keeps_pairs_together_when_asked(
    name, modulus, bits, share, seed, pairs_together
):
    task = build(name, modulus=modulus, bits=bits)
    if round(share * len(task.labels)) in (0, len(task.labels)):
        with pytest.raises(ValueError, match="empty side"):
            split(task, share, generator(seed), pairs_together=pairs_together)
        return
    train, validation = split(task, share, generator(seed), pairs_together=pairs_together)
    check_split(task, share, train, validation)
    if pairs_together:
        assert not set(task.pairs[train].tolist()) & set(task.pairs[validation].tolist())


@pytest.mark.parametrize("num_train", range(1, 49))
def test_pairs_stay_together_at_every_size_of_the_train_side(num_train):
    task = build("mul", modulus=7)
    for seed in range(10):
        train, validation = split(task, num_train / 49, generator(seed), pairs_together=True)
        assert len(train) == num_train
        assert not set(task.pairs[train].tolist()) & set(task.pairs[validation].tolist())


@pytest.mark.parametrize("pairs_together", [False, True])
def test_every_row_is_about_as_often_trained_on_as_the_share_says(pairs_together):
    task, num_seeds = build("mul", modulus=5), 600
    counts = torch.zeros(len(task.labels))
    for seed in range(num_seeds):
        counts[split(task, 0.5, generator(seed), pairs_together=pairs_together)[0]] += 1
    assert (counts / num_seeds - 0.5).abs().max() < 0.15


@pytest.mark.parametrize("pairs_together", [False, True])
@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, 1e-9, 1 - 1e-9])
def test_a_share_that_leaves_a_side_empty_is_refused_by_value(share, pairs_together):
    with pytest.raises(ValueError, match=f"train_share={share} "):
        split(build("add", modulus=5), share, generator(), pairs_together=pairs_together)
