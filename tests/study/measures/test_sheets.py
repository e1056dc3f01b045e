from muonlab.study.measures.sheets import sheet_of

import synthetic_features as synthetic
from muonlab.report.findings import Picture
from muonlab.report.picture import png


def test_a_picture_and_a_passage():
    picture = sheet_of("digits", synthetic.sheet("images"), "sheet")
    assert isinstance(picture, Picture)
    assert (picture.row_labels, picture.title) == (
        ("fog", "gaussian noise"),
        "One image of digits under every corruption",
    )
    assert png(picture)
    table = sheet_of("sources", synthetic.sheet("text"), "sheet")
    assert table.rows[7] == ("word drop", 1, "a passage of some length")
    assert (table.folded, table.title) == (True, "A passage of sources under every corruption")
