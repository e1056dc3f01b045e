"""Bytes of a text to characters, the encoding given or found, and what is invalid counted."""

import codecs
import re
from encodings.aliases import aliases
from typing import NamedTuple

from muonlab.data.sources import DataError, check_name

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNDEFINED_IN_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")
# Control characters but tab, line feed, vertical tab, form feed, carriage return and escape. Texts have next to none,
# compressed files about a tenth, UTF-16 of Latin letters a half.
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
MAX_SHARE_OF_CONTROLS = 0.02


class Decoded(NamedTuple):
    """A text, the encoding it was read in, and the number of places where bytes were replaced by U+FFFD."""

    text: str
    encoding: str
    num_replaced: int


def decode(data: bytes, source: str, encoding: str | None = None) -> Decoded:
    r"""Return the characters of a text, without a byte order mark, its lines as they are.

    Args:
        data: the bytes.
        source: where they are from, for messages.
        encoding: name of the encoding; None finds it (`find`).

    Raises:
        DataError: the encoding is not known, or none is given and the bytes are not a text or UTF-16 without a mark.
    """
    encoding = encoding or find(data, source)
    try:
        text = data.decode(encoding, "replace")
    except (LookupError, UnicodeError) as error:  # the second for codecs that cannot replace, such as idna
        check_name("encoding", encoding, sorted({name.replace("_", "-") for name in aliases.values()}))
        raise DataError(f"encoding {encoding!r} is not for texts; expected one such as utf-8 or cp1252") from error
    # "ignore" drops what "replace" replaces: what is left of U+FFFD was in the text itself.
    num_replaced = text.count("\ufffd")
    if num_replaced:
        num_replaced -= data.decode(encoding, "ignore").count("\ufffd")
    return Decoded(text.removeprefix("\ufeff"), encoding, num_replaced)


def find(data: bytes, source: str) -> str:
    """Return the encoding of a text.

    In this order: that of a byte order mark; UTF-8 where all bytes are valid; UTF-8 with replacements where at least as
    many characters of several bytes are valid as places are not (in another encoding such sequences hardly occur by
    chance); cp1252 or latin-1. These two differ in the bytes 80 to 9f alone, which are punctuation in cp1252 but for
    five that it lacks, and control characters in latin-1, which no text has: so it is cp1252, unless most of the bytes
    of that range are among the five.

    Raises:
        DataError: many of the bytes are control characters: not a text, or UTF-16 without a byte order mark.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding
    num_controls = len(data) - len(data.translate(None, CONTROLS))
    if num_controls > MAX_SHARE_OF_CONTROLS * len(data):
        raise DataError(
            f"{source}: {num_controls} of its {len(data)} bytes are control characters; expected a text. If it is "
            "UTF-16 without a byte order mark, save it as UTF-8"
        )
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    valid = data.decode("utf-8", "ignore")
    num_invalid = data.decode("utf-8", "replace").count("\ufffd") - valid.count("\ufffd")
    if len(re.findall(r"[^\x00-\x7f]", valid)) >= num_invalid:
        return "utf-8"
    upper = [byte for byte in data if 0x80 <= byte <= 0x9F]
    num_undefined = sum(byte in UNDEFINED_IN_CP1252 for byte in upper)
    return "cp1252" if 2 * num_undefined <= len(upper) else "latin-1"


def lines_of(text: str) -> list[str]:
    r"""Return the lines of a text that end in \n, \r\n or \r; str.splitlines also cuts at \x85, \u2028 and others."""
    lines = with_newlines(text).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def with_newlines(text: str) -> str:
    r"""Return the text with \n for \r\n and \r, as Python's open() has it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
