import pytest
import torch

from muonlab.measure.margins import margins
from muonlab.studies.features.work import layers
from muonlab.studies.features.work.robustness import corrupt_all
from muonlab.studies.features.work.states import subject
from nested import equal


@pytest.fixture(scope="module")
def subjects(digits):
    """Three nets of other weights, untrained."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = digits.build(digits.judged).eval()
        found.append(subject(net, digits))
    return found


@pytest.fixture(scope="module")
def states(subjects, digits, few):
    return [each.states for each in corrupt_all(subjects, digits, few)]


@pytest.mark.kernels
def test_the_rows_of_a_net_are_those_that_it_has_alone(subjects, states, digits, few):
    # To what a fit leaves open, which rounding may use up (tests/measure/test_probes.py).
    together = layers.layers(subjects, digits.measured, states, few, by_example=True)
    for k, measured in enumerate(subjects):
        (alone,) = layers.layers([measured], digits.measured, [states[k]], few, by_example=True)
        equal(alone, together[k], rel=layers.TOLERANCE, abs=layers.TOLERANCE)


def test_only_what_is_asked_for_is_measured(subjects, digits, few, states):
    ((row,),) = layers.layers(subjects[:1], digits.measured, [], few, measures=["rank"])
    assert row.keys() == {"tap", "width", "num_examples", "raw", "centred", "effective_rank_interval"}
    ((other,),) = layers.layers(subjects[:1], digits.measured, states[:1], few, measures=["margins"])
    assert other.keys() == {"tap", "probe", "margins"}
    ((both,),) = layers.layers(subjects[:1], digits.measured, states[:1], few)
    assert both == row | other


def test_margins_of_examples_average_to_the_mean(subjects, states, digits, few):
    for (row,) in layers.layers(subjects, digits.measured, states, few, by_example=True):
        for kind in ("by_norm", "raw"):
            listed = row["margins_by_example"][kind]
            assert len(listed) == 60
            assert sum(listed) / 60 == pytest.approx(row["margins"]["clean"][kind]["mean"], rel=1e-12)


def test_a_probe_that_is_zero_has_raw_margins_alone(subjects):
    found = margins(torch.tensor([[[0.5, 0.2], [0.5, 0.2]]]), torch.tensor([0, 1]), torch.zeros(1, 2, 3))
    (row,) = layers.summaries(found)
    assert row["by_norm"]["mean"] is None
    assert row["raw"]["mean"] == pytest.approx(0, abs=1e-7)


def test_the_rank_of_wide_hidden_states_has_about_the_same_interval_by_the_jackknife(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 16, generator=generator) * torch.linspace(0.2, 2, 16)
    low, high = layers.spectrum(hidden)["effective_rank_interval"]
    monkeypatch.setattr(layers, "BOOTSTRAPPED", 8)
    found = layers.spectrum(hidden)
    assert found["effective_rank_interval"] != [low, high]
    # The bootstrap's interval is not around the value: resampled examples repeat, which lowers ranks.
    width = found["effective_rank_interval"][1] - found["effective_rank_interval"][0]
    assert width == pytest.approx(high - low, rel=0.35)
    middle = sum(found["effective_rank_interval"]) / 2
    assert middle == pytest.approx(found["raw"]["effective_rank"], rel=1e-9)


def test_only_the_controls_of_what_is_measured_are_made(digits, few):
    torch.manual_seed(0)
    measured = subject(digits.build(digits.judged).eval(), digits)
    found = layers.controls(measured, digits.measured, few)
    assert found["tap"] == "blocks.0"
    assert found["rank_one"]["raw"]["effective_rank"] == pytest.approx(1, abs=1e-4)
    assert found["shuffled_labels"]["test_accuracy"] < 0.4
    assert layers.controls(measured, digits.measured, few, ["rank"]) == {k: found[k] for k in ("tap", "rank_one")}
    assert layers.controls(measured, digits.measured, few, ["margins"]) == {
        k: found[k] for k in ("tap", "shuffled_labels")
    }
