import doctest
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.measure import corrupt_text
from muonlab.measure.corrupt_text import CORRUPTIONS, KEYBOARD, LOOKALIKES, corrupt

# Letters and digits that every corruption can change, words of five; none twice in a row.
LONG = " ".join("abodg" if number % 3 else "Ilnes" for number in range(4000))
CHARACTER_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16)
WORD_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
ANY_TEXT = st.text(st.characters(), max_size=60) | st.text("ab cé\n\u2003ßİ0", max_size=60)
SEVERITY = st.integers(1, 5)
SEED = st.integers(-(2**70), 2**70)


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(text=ANY_TEXT, severity=SEVERITY, seed=SEED)
@settings(max_examples=40)
def test_any_text_gives_a_text_and_again_the_same(name, text, severity, seed):
    found = corrupt(text, name, severity, seed=seed)
    assert isinstance(found, str)
    assert corrupt(text, name, severity, seed=seed) == found
    assert corrupt(text, name, 0, seed=seed) == text


def test_nothing_stays_nothing():
    for name in CORRUPTIONS:
        for seed in range(20):
            assert corrupt("", name, 5, seed=seed) == ""
            for blank in (" ", "\n\t "):
                assert not corrupt(blank, name, 5, seed=seed).strip()


@given(text=ANY_TEXT, severity=SEVERITY, seed=SEED)
@settings(max_examples=60)
def test_lengths(text, severity, seed):
    for name in ("drop", "word_drop"):
        assert len(corrupt(text, name, severity, seed=seed)) <= len(text)
    for name in ("insert", "repeat"):
        assert len(corrupt(text, name, severity, seed=seed)) >= len(text)
    for name in ("swap", "keyboard", "case", "word_shuffle"):
        assert len(corrupt(text, name, severity, seed=seed)) == len(text)


@given(text=ANY_TEXT, severity=SEVERITY, seed=SEED)
@settings(max_examples=60)
def test_swaps_keep_the_characters_and_shuffles_the_words(text, severity, seed):
    swapped = corrupt(text, "swap", severity, seed=seed)
    assert Counter(swapped) == Counter(text)
    assert [character.isspace() for character in swapped] == [character.isspace() for character in text]
    assert Counter(corrupt(text, "word_shuffle", severity, seed=seed).split()) == Counter(text.split())


@given(words=st.lists(st.sampled_from(["a", "bc", "def"]), min_size=1, max_size=30), severity=SEVERITY, seed=SEED)
@settings(max_examples=60)
def test_word_drop_keeps_the_order_and_at_least_one(words, severity, seed):
    kept = iter(words)
    left = corrupt("  " + " ".join(words) + "\n", "word_drop", severity, seed=seed)
    assert left.split()
    assert all(word in kept for word in left.split())
    assert left == "  " + " ".join(left.split()) + "\n"


def changes(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_share_of_characters_touched_is_that_of_the_severity(severity):
    """To one more or none, since positions are drawn without replacement."""
    share, blanks = CHARACTER_SHARES[severity - 1], LONG.count(" ")
    letters = len(LONG) - blanks
    for name in ("swap", "keyboard", "case"):
        assert abs(changes(LONG, corrupt(LONG, name, severity, seed=7)) - share * letters) <= 2
    for name, sign in (("drop", -1), ("insert", 1), ("repeat", 1)):
        assert abs(sign * (len(corrupt(LONG, name, severity, seed=7)) - len(LONG)) - share * letters) <= 1
    text = "".join(letter for letter in LONG if all(len(one) == 1 for one in LOOKALIKES.get(letter, "")))
    text = "".join(letter for letter in text if letter in LOOKALIKES)
    assert abs(changes(text, corrupt(text, "lookalike", severity, seed=7)) - share * len(text)) <= 1
    found = corrupt(LONG, "whitespace", severity, seed=7)
    assert found.replace(" ", "") == LONG.replace(" ", "")
    assert found.count(" ") != blanks
    assert abs(found.count(" ") - blanks - share * (letters - blanks)) < 10 * (share * blanks) ** 0.5
    # Short texts are touched as often on the average.
    gone = sum(7 - len(corrupt("letters", "drop", severity, seed=3, index=index)) for index in range(2000))
    assert abs(gone - share * 7 * 2000) < 5 * (7 * share * 2000) ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_share_of_words_touched_is_that_of_the_severity(severity):
    share, num = WORD_SHARES[severity - 1], len(LONG.split())
    assert abs(num - len(corrupt(LONG, "word_drop", severity, seed=7).split()) - share * num) <= 1
    found = corrupt(" ".join(map(str, range(3000))), "word_shuffle", severity, seed=7).split()
    moved = [abs(int(word) - place) for place, word in enumerate(found)]
    assert abs(sum(distance > 0 for distance in moved) - 3000 * share) <= 4
    assert max(moved) == 2


@pytest.mark.parametrize("name", ["keyboard", "case"])
def test_what_a_severity_touches_the_next_touches_alike(name):
    found = [corrupt(LONG[:600], name, severity, seed=5) for severity in range(1, 6)]
    for mild, strong in pairwise(found):
        assert all(b == c for a, b, c in zip(LONG, mild, strong, strict=False) if a != b)
        assert mild != strong


def test_seeds_and_indices_give_other_texts():
    texts = {corrupt(LONG, "drop", 3, seed=seed, index=index) for seed in (0, 1) for index in (0, 1)}
    assert len(texts) == 4


def test_another_process_gives_the_same():
    code = "from muonlab.measure.corrupt_text import *\n"
    code += "print([corrupt('A small, cold stone fell.', name, 5, seed=3) for name in CORRUPTIONS])"
    command = [sys.executable, "-c", code]
    answers = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert answers == {str([corrupt("A small, cold stone fell.", name, 5, seed=3) for name in CORRUPTIONS])}


def test_each_replacement_is_of_its_kind():
    text = "The quick brown fox jumps over 13 lazy dogs. " * 20
    for one, other in zip(text, corrupt(text, "keyboard", 5, seed=1), strict=True):
        assert one == other or other in KEYBOARD[one]
    for one, other in zip(text, corrupt(text, "case", 5, seed=1), strict=True):
        assert one.lower() == other.lower()
    assert all(key not in others for table in (KEYBOARD, LOOKALIKES) for key, others in table.items())


def test_the_keyboard_is_a_keyboard():
    assert set(KEYBOARD["g"]) == set("tyfhvb")
    assert set(KEYBOARD["Q"]) == {"W", "A", "1", "2"}
    assert all(
        key in KEYBOARD[other]
        for key, others in KEYBOARD.items()
        for other in others
        if key.islower() and other.islower()
    )


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
