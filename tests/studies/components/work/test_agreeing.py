import numpy as np
import pytest
import torch

from muonlab.studies.components.config import Agree
from muonlab.studies.components.theory import flows
from muonlab.studies.components.work import agreeing

STEPS = (200, 400, 800)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "softmax"},
        {"loss": "softmax", "components": {"classes": 6, "ratio": 10, "rotation": 0.5}},
        {"loss": "squared"},
        {"loss": "squared", "components": {"patterns": "random", "strengths": (3.0, 2.0, 1.0), "rank": 3}},
    ],
)
def test_gradient_descent_goes_to_its_flow_at_first_order(agree, fields):
    result = agree(flow="gradient", **fields)
    assert result["orders"] == pytest.approx([1, 1], abs=0.03)
    assert result["reasons"] == [None, None]
    assert result["errors"][-1] < 1e-3
    assert result["sizes"] == [2 / steps for steps in STEPS]


def test_muon_on_softmax_is_its_flow_at_any_step_to_rounding(agree):
    result = agree(flow="spectral", components={"ratio": 8})
    assert max(result["errors"]) < 1e-12
    assert result["orders"] == [None, None]
    assert result["reasons"] == ["rounding", "rounding"]


def test_muon_on_the_squared_loss_stops_within_a_step_of_its_flow(agree):
    steps = (400, 800, 1600)
    result = agree(flow="spectral", loss="squared", time=3.0, steps=steps)  # after all components have come to rest
    # Each of 7 gains, 1 / s_k = 1 / 2 to 2, is at most a step away.
    gains = 1 / np.array([2.0, 1, 1, 0.5, 0.5, 0.5, 0.5])
    for error, size in zip(result["errors"], result["sizes"], strict=True):
        assert 0.01 * size < error < size * 7**0.5 / np.linalg.norm(gains)
    assert result["orders"][-1] == pytest.approx(1, abs=0.1)
    assert result["errors"][-1] < 1e-3


def test_sign_descent_is_exact_at_small_logits_where_no_sign_has_turned(agree):
    result = agree(flow="sign", time=1e-4, components={"classes": 4, "imbalance": 3.0})
    assert max(result["errors"]) < 1e-9
    assert result["times"] == [1e-4, 5e-5, 2.5e-5]
    assert result["sizes"] == [time / steps for time, steps in zip(result["times"], STEPS, strict=True)]


def test_sign_descent_goes_to_the_small_logits_as_time_goes_to_zero(agree):
    errors = agree(flow="sign", time=0.5)["errors"]
    assert errors[0] > errors[1] > errors[2]


def test_members_are_held_to_the_closed_form_and_not_to_each_other(agree, monkeypatch):
    exact = flows.squared
    monkeypatch.setattr(flows, "squared", lambda *arguments: 1.01 * exact(*arguments))
    result = agree(flow="gradient", loss="squared", steps=(200, 400))
    assert result["errors"] == pytest.approx([0.01 / 1.01] * 2, rel=0.25)
    assert abs(result["orders"][0]) < 0.3


def test_steps_that_are_too_large_have_no_order_and_say_so(agree):
    result = agree(flow="gradient", loss="squared", time=1e6, steps=(100, 200))
    assert result["errors"] == [None, None]
    assert (result["orders"], result["reasons"]) == ([None], ["diverged"])


def test_the_mean_of_the_loss_is_weighted_by_the_priors():
    job = Agree.model_validate(
        {"components": {"noise": 0, "imbalance": 4}, "flow": "sign", "loss": "squared", "time": 1, "steps": (1, 2)}
    )
    problem = agreeing.build_problem(job.components, 3)
    logits = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = agreeing._weighted(job, problem)(logits, torch.arange(8)).mean()
    targets = np.eye(8) - 1 / 8
    assert float(found) == pytest.approx(float(problem.priors @ ((logits.numpy() - targets) ** 2).sum(1) / 2))


def test_a_tree_of_which_a_level_is_torn_has_no_closed_form(agree):
    with pytest.raises(ValueError, match="level 2 has 1 of 4 components"):
        agree(flow="gradient", components={"rank": 4})
