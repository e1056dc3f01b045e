"""Ten corruptions of text at five severities: typing and scanning errors, words lost and moved."""

import hashlib
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from muonlab.measure.corruptions import check

T = TypeVar("T")

# Shares changed at severities 1 to 5, ours: arXiv 2606.09658 corrupts text, but its list and strengths are not known.
CHARACTER_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16)
WORD_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
WINDOW = 3  # words that `word_shuffle` moves among themselves

ROWS = (("1234567890", 0.0), ("qwertyuiop", 0.5), ("asdfghjkl", 0.75), ("zxcvbnm", 1.25))  # keys and shift of the row
# A character, and what a scanner reads it as.
READ_AS = (
    "0=O,o 1=l,I 2=Z,z 5=S,s 6=b,G 8=B 9=g,q B=8 D=O E=F G=C,6 I=l,1 O=0,Q Q=O S=5 U=V V=U Z=2 a=o b=h,6 c=e,o "
    "d=cl e=c f=t g=q,9 h=b,n i=j,l j=i l=1,I m=rn n=ri,h o=0,c q=g s=5 t=f u=v,ii v=u w=vv y=v z=2"
)
LOOKALIKES = {pair[0]: tuple(pair[2:].split(",")) for pair in READ_AS.split()}


def _neighbours() -> dict[str, tuple[str, ...]]:
    """Return the keys that touch each letter's and digit's key on a US keyboard."""
    places = {key: (number + shift, row) for row, (keys, shift) in enumerate(ROWS) for number, key in enumerate(keys)}
    near = {
        key: tuple(o for o, (x, y) in places.items() if o != key and abs(y - row) <= 1 and abs(x - column) <= 1)
        for key, (column, row) in places.items()
    }
    capitals = {key.upper(): tuple(map(str.upper, others)) for key, others in near.items() if key.isalpha()}
    return near | capitals


KEYBOARD = _neighbours()


class Chance:
    """Random choices that follow from a string, the same in every process and version of Python."""

    def __init__(self, key: str):
        # Python promises the same sequence for a seed of Random.random alone.
        self._random = random.Random(int.from_bytes(hashlib.blake2b(key.encode()).digest(), "big")).random

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[int(self._random() * len(choices))]

    def some(self, choices: Sequence[T], number: float) -> list[T]:
        """Return that many different choices in random order, a fraction of one more with that chance, at most all.

        More of them begin with those that fewer would be.
        """
        count = math.floor(number + self._random())
        order = sorted((self._random(), place) for place in range(len(choices)))
        return [choices[place] for _, place in order[:count]]


def corrupt(text: str, name: str, severity: int, *, seed: int, index: int = 0) -> str:
    """Return a corrupted copy of one text.

    A share of the characters or words that the corruption can change is changed, drawn without replacement; a fraction
    of a character is one more or none, by chance. What a severity changes, the next changes too.

    | name | of which | change |
    |---|---|---|
    | swap | characters | two different neighbours within a word swap places; both count |
    | drop | characters but blanks | removed |
    | insert | characters but blanks | a random lower-case letter follows |
    | repeat | characters but blanks | doubled |
    | keyboard | letters and digits of a US keyboard | becomes that of a neighbouring key, in the same case |
    | lookalike | characters that scanners confuse | becomes what it is read as, maybe two characters |
    | case | characters with another case | takes it |
    | whitespace | all characters | a blank is removed; before any other character one is inserted |
    | word_drop | words, all but one at most | removed, with the blanks before it, or after the first |
    | word_shuffle | words | three in a row rotate by one or two places; all three count |

    Args:
        text: any string.
        name: one of CORRUPTIONS.
        severity: 1 to 5, for shares of .01, .02, .04, .08, .16 of the characters or .05, .1, .2, .3, .4 of the words;
            0 returns the text.
        seed, index: the random choices follow from both; a text's index is its own number.

    Raises:
        ValueError: an unknown name, a severity out of range.

    Examples:
        >>> corrupt("the quick brown fox", "word_shuffle", 5, seed=0)
        'brown the quick fox'
    """
    check(name, severity, CORRUPTIONS)
    if severity == 0:
        return text
    shares = WORD_SHARES if name.startswith("word") else CHARACTER_SHARES
    return FUNCTIONS[name](text, shares[int(severity) - 1], Chance(f"{name} {seed} {index}"))


def _swap(text: str, share: float, chance: Chance) -> str:
    characters = list(text)
    places = [
        place
        for place in range(len(text) - 1)
        if text[place] != text[place + 1] and not text[place].isspace() and not text[place + 1].isspace()
    ]
    free = _apart(chance.some(places, len(places)))
    for place in chance.some(free, 0.5 * share * sum(not character.isspace() for character in text)):
        characters[place], characters[place + 1] = characters[place + 1], characters[place]
    return "".join(characters)


def _apart(places: list[int]) -> list[int]:
    """Return those places of which neither neighbour came earlier."""
    taken: set[int] = set()
    for place in places:
        if not taken & {place - 1, place, place + 1}:
            taken.add(place)
    return sorted(taken)


def _each(text: str, share: float, chance: Chance, choices: Callable[[str], Sequence[str]]) -> str:
    """Replace a share of the characters that have choices by one of them."""
    places = [place for place, character in enumerate(text) if choices(character)]
    characters = list(text)
    for place in chance.some(places, share * len(places)):
        characters[place] = chance.pick(choices(text[place]))
    return "".join(characters)


def _by_choice(choices: Callable[[str], Sequence[str]]) -> Callable[[str, float, Chance], str]:
    return lambda text, share, chance: _each(text, share, chance, choices)


def _unless_blank(choices: Callable[[str], Sequence[str]]) -> Callable[[str, float, Chance], str]:
    return _by_choice(lambda character: () if character.isspace() else choices(character))


def _other_case(character: str) -> Sequence[str]:
    other = character.swapcase()
    return (other,) if other != character and len(other) == 1 else ()


def _word_drop(text: str, share: float, chance: Chance) -> str:
    first, words, last = _words(text)
    gone = set(chance.some(range(len(words)), share * len(words))[: max(0, len(words) - 1)])
    kept = [word for place, word in enumerate(words) if place not in gone]
    return first + "".join(blank * bool(place) + word for place, (blank, word) in enumerate(kept)) + last


def _word_shuffle(text: str, share: float, chance: Chance) -> str:
    first, words, last = _words(text)
    begin = chance.pick(range(WINDOW)) if len(words) >= 2 * WINDOW else 0
    windows = [range(place, min(place + WINDOW, len(words))) for place in range(begin, len(words), WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    moved = [word for _, word in words]
    for window in chance.some(windows, share * len(words) / WINDOW):
        turn = chance.pick(range(1, len(window)))
        for place in window:
            moved[place] = words[window[(place - window[0] + turn) % len(window)]][1]
    return first + "".join(blank + word for (blank, _), word in zip(words, moved, strict=True)) + last


def _words(text: str) -> tuple[str, list[tuple[str, str]], str]:
    """Return the blanks before the first word, (blanks before it, word) of each, and the blanks after the last."""
    parts = re.split(r"(\S+)", text)  # blanks and words by turns
    words = list(zip(["", *parts[2:-1:2]], parts[1::2], strict=True)) if len(parts) > 1 else []
    return parts[0], words, parts[-1] if words else ""


FUNCTIONS: dict[str, Callable[[str, float, Chance], str]] = {
    "swap": _swap,
    "drop": _unless_blank(lambda character: ("",)),
    "insert": _unless_blank(lambda character: [character + letter for letter in "abcdefghijklmnopqrstuvwxyz"]),
    "repeat": _unless_blank(lambda character: (2 * character,)),
    "keyboard": _by_choice(lambda character: KEYBOARD.get(character, ())),
    "lookalike": _by_choice(lambda character: LOOKALIKES.get(character, ())),
    "case": _by_choice(_other_case),
    "whitespace": _by_choice(lambda character: ("",) if character.isspace() else (" " + character,)),
    "word_drop": _word_drop,
    "word_shuffle": _word_shuffle,
}
CORRUPTIONS: tuple[str, ...] = tuple(FUNCTIONS)
