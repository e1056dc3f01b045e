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
@given(text=ANY_TEXT, seed=SEED)
@settings(max_examples=15)
def test_severity_0_is_the_text(name, text, seed):
    assert corrupt(text, name, 0, seed=seed) == text


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(text=ANY_TEXT, severity=SEVERITY, seed=SEED)
@settings(max_examples=40)
def test_any_text_gives_a_text_and_again_the_same(name, text, severity, seed):
    found = corrupt(text, name, severity, seed=seed)
    assert isinstance(found, str)
    assert corrupt(text, name, severity, seed=seed) == found


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_nothing_stays_nothing(name, text):
    for seed in range(20):
        assert not corrupt(text, name, 5, seed=seed).strip()
        assert corrupt("", name, 5, seed=seed) == ""


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


@pytest.mark.parametrize("severity", range(1, 6))
class TestTheShareTouched:
    """To one more or none, since positions are drawn without replacement."""

    def letters(self):
        return sum(not character.isspace() for character in LONG)

    @pytest.mark.parametrize("name", ["swap", "keyboard", "case"])
    def test_characters_changed(self, severity, name):
        found = corrupt(LONG, name, severity, seed=7)
        changed = sum(one != other for one, other in zip(LONG, found, strict=True))
        assert abs(changed - CHARACTER_SHARES[severity - 1] * self.letters()) <= 2

    def test_characters_dropped_inserted_and_repeated(self, severity):
        touched = CHARACTER_SHARES[severity - 1] * self.letters()
        assert abs(len(LONG) - len(corrupt(LONG, "drop", severity, seed=7)) - touched) <= 1
        assert abs(len(corrupt(LONG, "insert", severity, seed=7)) - len(LONG) - touched) <= 1
        assert abs(len(corrupt(LONG, "repeat", severity, seed=7)) - len(LONG) - touched) <= 1

    def test_characters_that_look_alike(self, severity):
        text = "".join(letter for letter in LONG if all(len(one) == 1 for one in LOOKALIKES.get(letter, "ab")))
        text = "".join(letter for letter in text if letter in LOOKALIKES)
        found = corrupt(text, "lookalike", severity, seed=7)
        changed = sum(one != other for one, other in zip(text, found, strict=True))
        assert abs(changed - CHARACTER_SHARES[severity - 1] * len(text)) <= 1

    def test_blanks_gone_and_come(self, severity):
        found = corrupt(LONG, "whitespace", severity, seed=7)
        assert found.replace(" ", "") == LONG.replace(" ", "")
        words, blanks = self.letters(), LONG.count(" ")
        share = CHARACTER_SHARES[severity - 1]
        spread = 5 * (share * blanks) ** 0.5
        assert abs(found.count(" ") - blanks - share * (words - blanks)) < 2 * spread
        assert found.count(" ") != blanks

    def test_words_dropped(self, severity):
        num = len(LONG.split())
        left = len(corrupt(LONG, "word_drop", severity, seed=7).split())
        assert abs(num - left - WORD_SHARES[severity - 1] * num) <= 1

    def test_words_moved(self, severity):
        words = [str(number) for number in range(3000)]
        found = corrupt(" ".join(words), "word_shuffle", severity, seed=7).split()
        moved = [abs(int(word) - place) for place, word in enumerate(found)]
        assert abs(sum(distance > 0 for distance in moved) - 3000 * WORD_SHARES[severity - 1]) <= 4
        assert max(moved) == 2

    def test_short_texts_are_touched_as_often_on_the_average(self, severity):
        share = CHARACTER_SHARES[severity - 1]
        gone = sum(7 - len(corrupt("letters", "drop", severity, seed=3, index=index)) for index in range(2000))
        assert abs(gone - share * 7 * 2000) < 5 * (7 * share * 2000) ** 0.5


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


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown corruption 'wordshuffle'; did you mean 'word_shuffle'"):
        corrupt("text", "wordshuffle", 1, seed=0)


@pytest.mark.parametrize("severity", [-1, 6, 2.5])
def test_a_severity_out_of_range_is_refused(severity):
    with pytest.raises(ValueError, match=f"severity {severity} is out of range"):
        corrupt("text", "drop", severity, seed=0)


def test_the_example_runs():
    assert doctest.testmod(corrupt_text) == (0, 1)
