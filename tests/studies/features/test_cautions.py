from muonlab.studies.features.cautions import cautions

import synthetic_features as synthetic
from muonlab.studies.features.readings import read
from muonlab.studies.features.verdict import verdicts


def cautions_of(folder, asked=None, planted=None, **others):
    runs = read(synthetic.write(folder, asked, planted, **others))
    return cautions(runs, verdicts(runs))


def test_cautions(tmp_path):
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, seed) == ("adamw", 1) and part > 0.5 else 2 - part

    found = " ".join(cautions_of(tmp_path, planted=synthetic.Planted(loss=loss)))
    assert "Muon on cnn on digits (low, 0.003)" in found
    assert "Diverged, and left out of every measure: 1 of 4 AdamW runs of cnn on digits" in found


def test_untrained_nets_of_higher_rank_are_a_caution(tmp_path):
    planted = synthetic.Planted(shift=lambda what, net, name: -1.0 * (what == "rank"))
    assert any("never trained" in caution for caution in cautions_of(tmp_path, planted=planted))


def test_probes_at_chance_are_a_caution(tmp_path, monkeypatch):
    layer = synthetic.layer

    def blind(*values):
        found = layer(*values)
        found["margins"]["clean"]["below_zero"] = 0.85
        return found

    monkeypatch.setattr(synthetic, "layer", blind)
    found = cautions_of(tmp_path, synthetic.study(families=["cnn"]))
    assert (
        "Probes are no better than chance, so these layers are left out of (b): Muon on cnn on digits (2 of 2 layers), "
        "AdamW on cnn on digits (2 of 2 layers)."
    ) in found


def test_other_ways_to_count_that_turn_round(tmp_path, monkeypatch):
    layer = synthetic.layer

    def turned(tap, margin, rank):
        found = layer(tap, margin, rank)
        found["raw"]["stable_rank"] = 10 - rank
        return found

    monkeypatch.setattr(synthetic, "layer", turned)
    found = cautions_of(
        tmp_path, planted=synthetic.Planted(shift=lambda what, net, name: 0.1 * ((what, name) == ("rank", "muon")))
    )
    assert any(
        "(d) depends on how it is counted: decided comparisons turn round by stable rank in 2 of 2" in caution
        for caution in found
    )


def test_losses_that_are_not_alike_at_matched_loss_are_a_caution(tmp_path):
    def loss(optimizer, rate, seed, part):
        return 0.2 if optimizer == "muon" and part > 0.5 else 2 - part  # falls at once from 1.5 to 0.2

    asked = synthetic.study(families=["cnn"])
    found = cautions_of(tmp_path, asked, synthetic.Planted(loss=loss))
    assert (
        "Matched in name more than in fact, since looks are steps apart; validation losses met: cnn on digits (Muon "
        "0.200, AdamW 1)."
    ) in found


def test_comparisons_before_their_controls_are_a_caution(tmp_path):
    asked = synthetic.study(families=["cnn"])
    found = cautions_of(tmp_path, asked, undone=lambda step: step.role == "measure")
    assert "No control is measured yet of cnn on digits: nothing shows that measures can fail." in found


def test_losses_that_are_not_alike_at_the_end_are_a_caution(tmp_path):
    def loss(optimizer, rate, seed, part):
        return (2 if optimizer == "muon" else 3) - part

    found = cautions_of(tmp_path, synthetic.study(families=["cnn"]), synthetic.Planted(loss=loss))
    assert any(each.endswith("clean validation losses at the end: cnn on digits (Muon 1, AdamW 2).") for each in found)
    # Matched: AdamW's last look, Muon's first, where its learning rate is another.
    assert any(each.endswith("share of the budget: cnn on digits (Muon 0%, AdamW 100%).") for each in found)
    constant = synthetic.study(families=["cnn"], schedule="constant")
    found = cautions_of(tmp_path / "constant", constant, synthetic.Planted(loss=loss))
    assert not any("schedule" in each for each in found)


def test_layers_whose_probes_are_blind_do_not_enter_margins(tmp_path, monkeypatch):
    layer = synthetic.layer

    def blind(tap, margin, rank):
        found = layer(tap, margin, rank)
        if tap.endswith("0"):
            found["margins"]["clean"]["below_zero"] = 0.85
            found["margins"]["clean"]["by_norm"]["median"] = 1e6
        return found

    monkeypatch.setattr(synthetic, "layer", blind)
    runs = read(synthetic.write(tmp_path, synthetic.study(families=["cnn"])))
    (equal, _) = verdicts(runs)[1]
    assert equal.claim.letter == "b"
    assert all(max(block.means) < 100 for block in equal.blocks)
    assert len(equal.blocks) == 1


def test_final_runs_that_do_worse_than_their_search_are_a_caution(tmp_path):
    def loss(optimizer, rate, seed, part):
        return 2 - part + (0.8 if optimizer == "adamw" and seed in (1, 2, 3) else 0)  # the search has seed 0 alone

    found = cautions_of(tmp_path, synthetic.study(families=["cnn"]), synthetic.Planted(loss=loss))
    assert any(
        each.endswith("Validation loss: AdamW on cnn on digits (1 in the search, 1.60 after).") for each in found
    )
