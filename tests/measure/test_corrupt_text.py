import doctest
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.measure import corrupt_text
from muonlab.measure.corrupt_text import CORRUPTIONS, KEYBOARD, LOOKALIKES, corrupt

# Letters and digits that every corruption can change, words of five; none twice in a row.
LONG = " ".join("abodg" if number % 3 else "Ilnes" for number in range(1500))
CHARACTER_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16)
WORD_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
ANY_TEXT = st.text(st.characters(), max_size=60) | st.text("ab cé\n\u2003ßİ0", max_size=60)


@given(text=ANY_TEXT, severity=st.integers(1, 5), seed=st.integers(-(2**70), 2**70))
@settings(max_examples=100, deadline=None)
def test_what_every_corruption_keeps_of_any_text(text, severity, seed):
    found = {name: corrupt(text, name, severity, seed=seed) for name in CORRUPTIONS}
    for name, other in found.items():
        assert corrupt(text, name, severity, seed=seed) == other
        assert corrupt(text, name, 0, seed=seed) == text
        assert text.strip() or not other.strip()
        assert corrupt("", name, severity, seed=seed) == ""
    for name in ("drop", "word_drop"):
        assert len(found[name]) <= len(text)
    for name in ("insert", "repeat"):
        assert len(found[name]) >= len(text)
    for name in ("swap", "keyboard", "case", "word_shuffle"):
        assert len(found[name]) == len(text)
    assert Counter(found["swap"]) == Counter(text)
    assert [character.isspace() for character in found["swap"]] == [character.isspace() for character in text]
    assert Counter(found["word_shuffle"].split()) == Counter(text.split())


@given(
    words=st.lists(st.sampled_from(["a", "bc", "def"]), min_size=1, max_size=30),
    severity=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_word_drop_keeps_the_order_and_at_least_one(words, severity, seed):
    kept = iter(words)
    left = corrupt("  " + " ".join(words) + "\n", "word_drop", severity, seed=seed)
    assert left.split()
    assert all(word in kept for word in left.split())
    assert left == "  " + " ".join(left.split()) + "\n"


def changes(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_share_changed_is_that_of_the_severity(severity):
    """To one more or none, since positions are drawn without replacement."""
    share, blanks = CHARACTER_SHARES[severity - 1], LONG.count(" ")
    letters = len(LONG) - blanks
    for name in ("swap", "keyboard", "case"):
        assert abs(changes(LONG, corrupt(LONG, name, severity, seed=7)) - share * letters) <= 2
    for name, sign in (("drop", -1), ("insert", 1), ("repeat", 1)):
        assert abs(sign * (len(corrupt(LONG, name, severity, seed=7)) - len(LONG)) - share * letters) <= 1
    text = "".join(letter for letter in LONG if all(len(one) == 1 for one in LOOKALIKES.get(letter, ["no"])))
    assert abs(changes(text, corrupt(text, "lookalike", severity, seed=7)) - share * len(text)) <= 1
    found = corrupt(LONG, "whitespace", severity, seed=7)
    assert found.replace(" ", "") == LONG.replace(" ", "")
    assert found.count(" ") != blanks
    assert abs(found.count(" ") - blanks - share * (letters - blanks)) < 10 * (share * blanks) ** 0.5
    # Short texts are changed as often on average.
    gone = sum(7 - len(corrupt("letters", "drop", severity, seed=3, index=index)) for index in range(1000))
    assert abs(gone - share * 7 * 1000) < 5 * (7 * share * 1000) ** 0.5
    share, num = WORD_SHARES[severity - 1], len(LONG.split())
    assert abs(num - len(corrupt(LONG, "word_drop", severity, seed=7).split()) - share * num) <= 1
    found = corrupt(" ".join(map(str, range(3000))), "word_shuffle", severity, seed=7).split()
    moved = [abs(int(word) - place) for place, word in enumerate(found)]
    assert abs(sum(distance > 0 for distance in moved) - 3000 * share) <= 4
    assert max(moved) == 2


@pytest.mark.parametrize("name", ["keyboard", "case"])
def test_what_a_severity_changes_the_next_changes_alike(name):
    found = [corrupt(LONG[:600], name, severity, seed=5) for severity in range(1, 6)]
    for mild, strong in pairwise(found):
        assert all(b == c for a, b, c in zip(LONG, mild, strong, strict=False) if a != b)
        assert mild != strong


def test_seeds_and_indices_give_other_texts_and_any_process_the_same():
    assert len({corrupt(LONG, "drop", 3, seed=seed, index=index) for seed in (0, 1) for index in (0, 1)}) == 4
    assert {name: corrupt("A small, cold stone fell.", name, 5, seed=3) for name in CORRUPTIONS} == {
        "swap": "A msall, cold stone fel.l",
        "drop": "A sll, cold stone ell.",
        "insert": "A smazll, cfold stone fell.t",
        "repeat": "A small, colld sttone felll.",
        "keyboard": "A xmall, cood stone feol.",
        "lookalike": "A smolI, cold st0ne fell.",
        "case": "A small, cold StONe fell.",
        "whitespace": " A small, c old ston e f ell.",
        "word_drop": "A small, stone",
        "word_shuffle": "A small, cold fell. stone",
    }


def test_each_replacement_is_of_its_kind():
    text = "The quick brown fox jumps over 13 lazy dogs. " * 20
    for one, other in zip(text, corrupt(text, "keyboard", 5, seed=1), strict=True):
        assert one == other or other in KEYBOARD[one]
    for one, other in zip(text, corrupt(text, "case", 5, seed=1), strict=True):
        assert one.lower() == other.lower()
    assert all(key not in others for table in (KEYBOARD, LOOKALIKES) for key, others in table.items())
    assert set(KEYBOARD["g"]) == set("tyfhvb")
    assert set(KEYBOARD["Q"]) == {"W", "A", "1", "2"}
    lower = [(key, other) for key, others in KEYBOARD.items() for other in others if (key + other).islower()]
    assert all(key in KEYBOARD[other] for key, other in lower)


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("wordshuffle", 1, "unknown corruption 'wordshuffle'; did you mean 'word_shuffle'"),
        ("drop", 6, "severity 6 is out of range"),
        ("drop", 2.5, "severity 2.5 is out of range"),
    ],
)
def test_bad_input_is_refused(name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt("text", name, severity, seed=0)


def test_the_example_runs():
    assert doctest.testmod(corrupt_text) == (0, 1)
