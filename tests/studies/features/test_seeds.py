from muonlab.studies.features.seeds import at_the_end, columns_of, line, series_of

from muonlab.report.findings import Series


def test_a_line_has_the_name_and_colour_of_its_optimizer():
    found = line("muon", [1, 2, 3], [[1.0, 3.0], [], [2.0]])
    assert (found.series, found.n, found.y) == (Series("Muon", "muon"), 2, (2.0, None, 2.0))


def test_the_untrained_net_is_grey():
    assert series_of("untrained") == Series("untrained", "none")
    assert [column.title for column in columns_of(["adamw", "untrained"], "accuracy")] == ["AdamW", "untrained"]


def test_what_is_compared_is_every_optimizer_at_the_end_and_the_untrained_net(runs):
    ends = at_the_end(runs)
    assert [side.key for side in ends.everyone] == ["muon", "adamw", "untrained"]
    assert [place.name for place in ends.places] == ["cnn on digits", "gpt on sources"]
    assert {model.state for model in ends.places[1].models["adamw"]} == {"final"}
    assert (ends.places[0].chance, ends.of_examples) == (0.2, False)
