import pytest
import torch

from muonlab.data.sources import DataError
from muonlab.data.tokens import Bytes
from muonlab.data.windows import cut
from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt
from muonlab.studies.features.config import Family, GPTConfig, TextData
from muonlab.studies.features.work import texts as texts_room
from muonlab.studies.features.work.texts import TextMaterial

PARTS = ("train", "validation", "test")


@pytest.fixture
def make(make_family):
    """A function that makes the material of some texts."""
    return lambda **data: TextMaterial(make_family("gpt", data=data))


def written(tokens):
    return Bytes().decode(tokens)


@pytest.mark.parametrize("of", ["pretraining", "language"])
def test_a_label_is_the_token_that_comes_next(words, texts, of):
    task = words.pretraining() if of == "pretraining" else words.transfer("language")
    text = (texts / ("text.txt" if of == "pretraining" else "other.txt")).read_text()
    for part in PARTS:
        inputs, labels = getattr(task, part)
        assert inputs.shape == labels.shape
        assert inputs.shape[1] == 16
        assert labels[:, :-1].equal(inputs[:, 1:])
        for row, following in zip(inputs[:20], labels[:20], strict=True):
            assert written(row) + written(following[-1:]) in text


@pytest.mark.parametrize("of", ["pretraining", "language"])
def test_no_window_reaches_from_one_part_into_another(words, texts, of):
    task = words.pretraining() if of == "pretraining" else words.transfer("language")
    text = (texts / ("text.txt" if of == "pretraining" else "other.txt")).read_text()
    for part, piece in zip(PARTS, cut(text, "it"), strict=True):
        inputs, labels = getattr(task, part)
        windows = [written(row) + written(following[-1:]) for row, following in zip(inputs, labels, strict=True)]
        in_order = [piece[start : start + 17] for start in range(0, len(piece) - 16, 16)]
        assert sorted(windows) == sorted(in_order)
        assert windows != in_order


def test_the_sets_are_the_same_for_every_call(make, words):
    for task, again in ((words.pretraining(), words.pretraining()), (words.pretraining(), make().pretraining())):
        for part in PARTS:
            assert getattr(task, part).inputs.equal(getattr(again, part).inputs)
    for part in PARTS:
        assert getattr(words.probing(), part).inputs.equal(getattr(make().probing(), part).inputs)


def test_labelled_texts_are_in_one_set_each_under_their_label(words, texts):
    known = dict(line.split(" ", 1)[::-1] for line in (texts / "examples.txt").read_text().splitlines())
    task = words.transfer("classes")
    seen = [written(row) for part in PARTS for row in getattr(task, part).inputs]
    assert sorted(seen) == sorted(text[:16] for text in known)
    for part in PARTS:
        inputs, labels = getattr(task, part)
        for row, label in zip(inputs, labels.tolist(), strict=True):
            fits = {label for text, label in known.items() if text.startswith(written(row))}
            assert ("minus", "plus")[label] in fits
    assert [len(getattr(task, part).labels) for part in PARTS] == [72, 18, 30]


def test_padding_is_masked_and_marks_the_end_alone(words):
    probing = words.probing()
    inputs = probing.train.inputs
    mask = probing.mask(inputs)
    lengths = mask.sum(1)
    assert 0 < lengths.min() < lengths.max() == 16
    for row, own, length in zip(inputs, mask, lengths.tolist(), strict=True):
        assert own.tolist() == [True] * length + [False] * (16 - length)
        assert row[length:].eq(Bytes.padding).all()
    assert (probing.pool, probing.rank_pool) == ("mean_tokens", "last_token")


def test_the_nets_have_a_next_token_or_classes(words):
    tokens = words.pretraining().train.inputs[:3]
    assert words.pretraining().build()(tokens).shape == (3, 16, 257)
    assert words.transfer("language").build()(tokens).shape == (3, 16, 257)
    net = words.transfer("classes").build().eval()
    padded = torch.cat([tokens, torch.full((3, 4), Bytes.padding)], dim=1)
    torch.testing.assert_close(net(padded), net(tokens))  # reads the last token that is real
    assert net(tokens).shape == (3, 2)


def test_chance_is_the_share_of_the_commonest_token_of_the_test_text(words, texts):
    task = words.pretraining()
    labels = task.test.labels.flatten().tolist()
    assert task.chance == max(labels.count(token) for token in set(labels)) / len(labels)


# -- corrupted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_leaves_as_many_windows_as_asked_for(words, name):
    for severity in (0, 5):
        windows, labelled = words.corrupted(name, severity, 40)
        assert windows.inputs.shape == windows.labels.shape == (40, 16)
        assert windows.labels[:, :-1].equal(windows.inputs[:, 1:])
        assert windows.labels[:-1, -1].equal(windows.inputs[1:, 0])
        assert labelled.inputs.shape == (30, 16)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_again_and_for_any_number(words, name):
    few, many, again = (words.corrupted(name, 4, number) for number in (5, 20, 5))
    for side in range(2):
        assert few[side].inputs.equal(again[side].inputs)
        assert few[side].inputs.equal(many[side].inputs[:5])
        assert few[side].labels.equal(many[side].labels[:5])
        assert not many[side].inputs.equal(words.corrupted(name, 0, 20)[side].inputs)


def test_severity_zero_is_the_text_that_is_held_out_and_the_labelled_texts_of_the_test_set(words, texts):
    windows, labelled = words.corrupted("drop", 0, 10)
    held_out = cut((texts / "text.txt").read_text(), "it")[2]
    assert "".join(written(row) for row in windows.inputs) == held_out[:160]
    assert labelled.inputs.equal(words.probing().test.inputs[:10])
    assert labelled.labels.equal(words.probing().test.labels[:10])


def test_a_corrupted_text_is_the_held_out_one_in_pieces(words, texts):
    held_out = cut((texts / "text.txt").read_text(), "it")[2]
    pieces = [held_out[:500], held_out[500:1000]]
    expected = "".join(corrupt(piece, "keyboard", 5, seed=0, index=index) for index, piece in enumerate(pieces))
    found = "".join(written(row) for row in words.corrupted("keyboard", 5, 50)[0].inputs)
    assert found == expected[: len(found)]
    assert len(found) == 800


class Words(Bytes):
    """Tokens of about four characters, as those of a trained tokenizer."""

    def encode(self, text):
        return torch.tensor([len(word) for word in text.split()])


@pytest.mark.parametrize("name", ["drop", "word_drop", "whitespace"])
def test_tokens_of_several_characters_leave_as_many_windows_too(make, monkeypatch, name):
    monkeypatch.setattr(texts_room, "build", lambda *_: Words())
    for severity in (0, 5):
        assert len(make().corrupted(name, severity, 12)[0].inputs) == 12


def test_a_test_text_of_which_no_window_is_left_is_an_error(make, tmp_path):
    (tmp_path / "short.txt").write_text("one two three four five six " * 7)  # of 196 characters 20 are tested on
    material = make(source=str(tmp_path / "short.txt"), length=19)
    assert len(material.corrupted("drop", 0, 5)[0].inputs) == 1
    with pytest.raises(
        DataError, match=r"drop at severity 5 leaves 1. tokens .* give a longer text or a smaller length"
    ):
        material.corrupted("drop", 5, 5)


def test_the_sheet_shows_one_text_under_everything(words):
    sheet = words.sheet()
    assert (sheet.rows, len(sheet.lines)) == (CORRUPTIONS, 10)
    assert {len(line) for line in sheet.lines} == {6}
    assert len({line[0] for line in sheet.lines}) == 1
    assert sum(line[5] != line[0] for line in sheet.lines) > 5  # a short text escapes some


# -- limits, notes and errors ----------------------------------------------------------------------


def test_limits_are_respected_and_the_notes_say_what_was_read(make, texts):
    material = make(limit=5000, transfer_limit=2000, per_class=40)
    notes = "\n".join(material.notes)
    for words in ("text.txt: 5000 characters", "other.txt: 2000 characters", "examples.txt: 80 texts"):
        assert words in notes
    task = material.transfer("classes")
    assert torch.cat([getattr(task, part).labels for part in PARTS]).bincount().tolist() == [40, 40]


def test_labelled_texts_with_a_test_set_of_their_own_are_tested_on_it(make, tmp_path, texts):
    (tmp_path / "test.txt").write_text("plus a b c\nminus d e f\nplus g h i\n")
    test = make(examples_test=str(tmp_path / "test.txt")).transfer("classes").test
    assert sorted(written(row) for row in test.inputs) == ["a b c", "d e f", "g h i"]


@pytest.mark.parametrize(
    ("field", "content", "words"),
    [
        ("source", None, "there is no file or folder"),
        ("transfer_source", None, "there is no file or folder"),
        ("examples", None, "there is no file or folder"),
        ("source", "", "is empty; expected a file with data"),
        ("source", " \n ", "holds blanks alone; expected a text"),
        ("examples", "a b\na c\n", "one class only, 'a'"),
    ],
)
def test_a_file_that_is_missing_or_empty_is_an_error(make, tmp_path, field, content, words):
    file = tmp_path / "given.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=words):
        make(**{field: str(file)})


def test_a_text_too_short_for_a_window_is_an_error(make, tmp_path):
    (tmp_path / "short.txt").write_text("a short text of few words")
    with pytest.raises(DataError, match=r"part of .*short.txt has . tokens, but one window of length=16 needs 17"):
        make(source=str(tmp_path / "short.txt")).pretraining()


def test_passages_that_may_stand_in_the_text_are_said_to(words):
    assert not any("may stand in the text" in note for note in words.notes)
    data = TextData(name="x", source="sources", transfer_source="documentation", examples="packages", limit=50_000)
    note = TextMaterial(Family(net=GPTConfig(), data=data)).notes[2]
    assert note.endswith("some of these passages may stand in the text pretrained on, for every optimizer alike")
