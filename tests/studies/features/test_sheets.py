from muonlab.studies.features.sheets import sheets

import synthetic_features as synthetic
from muonlab.report.picture import png
from muonlab.studies.features.readings import read


def test_a_sheet_for_every_data_set(tmp_path):
    runs = read(synthetic.write(tmp_path, synthetic.study(families=["cnn", "vit", "gpt"])))
    picture, table = sheets(runs)
    assert (picture.row_labels, picture.column_labels) == (("fog", "gaussian noise"), ("0", "1", "2", "3", "4", "5"))
    assert png(picture)
    assert table.rows[7] == ("word drop", 1, "a passage of some length")
    assert table.folded


def test_none_before_it_is_drawn(tmp_path):
    assert sheets(read(synthetic.write(tmp_path, undone=lambda step: step.role == "measure"))) == ()
