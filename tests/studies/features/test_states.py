import pytest
from muonlab.studies.features.states import states, validation_loss

import synthetic_features as synthetic
from muonlab.studies.features.readings import FeatureRuns, read
from muonlab.studies.features.work.pretraining import LOOK_EXAMPLES


def test_the_end_and_matched_loss(tmp_path, rows_of):
    def loss(optimizer, rate, seed, part):
        return 2 - part - (0.5 if optimizer == "muon" else 0.0)  # Muon is ahead: 1.5 - part reaches 1 halfway

    runs = read(synthetic.write(tmp_path, synthetic.study(families=["cnn"]), synthetic.Planted(loss=loss)))
    (table,) = states(runs)
    rows = rows_of(table)
    assert [(row["state"], row["optimizer"]) for row in rows] == [
        ("end", "Muon"),
        ("end", "AdamW"),
        ("matched to AdamW", "Muon"),
        ("matched to Muon", "AdamW"),
    ]
    looks = runs.families[0].finals["muon"]["steps"]
    step = next(step for step in looks if 1.5 - step / 12 <= 1)
    assert [row["step"] for row in rows] == [12, 12, step, 12]
    assert [row["validation_loss"] for row in rows] == pytest.approx([0.5, 1, 1.5 - step / 12, 1])
    assert f"up to {LOOK_EXAMPLES['classes']} examples, or {LOOK_EXAMPLES['tokens']} windows of text" in table.note
    assert (rows[0]["margin"].value, rows[0]["rank"].value, rows[0]["n"]) == (pytest.approx(1.5), pytest.approx(4.5), 4)


def test_loss_of_a_model_without_its_final_run(runs):
    family = runs.families[0]
    model = family.of("muon", "final")[0]
    assert validation_loss(family, "sgd", model) is None


def test_nothing_measured(runs):
    assert states(FeatureRuns(runs.asked, (), (), 0)) == ()
