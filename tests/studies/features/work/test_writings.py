from muonlab.data.text import Text
from muonlab.data.tokens import Bytes
from muonlab.studies.features.work.writings import Corpus


def test_the_sheet_of_a_text_shows_the_beginning_of_its_test_part():
    whole = "".join(f"word{k} " for k in range(400))
    found = Corpus(Text(whole, "made", "utf-8"), 8, "bytes", Bytes()).sheet()
    start = whole[len(whole) - round(0.1 * len(whole)) :]
    for line in found.lines:
        assert line[0] == " ".join(start.split())[:80]
        assert len({*line}) > 1


def test_windows_of_the_test_part_are_those_of_severity_zero():
    corpus = Corpus(Text("".join(map(chr, range(32, 127))) * 20, "made", "utf-8"), 8, "bytes", Bytes())
    found = corpus.corrupted("drop", 0, 1000)
    assert sorted(map(tuple, found.inputs.tolist())) == sorted(map(tuple, corpus.sets.test.inputs.tolist()))
