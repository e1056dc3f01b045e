"""A job from its config to its file, and agreement with the closed forms."""

import numpy as np
import pytest
import torch

from muonlab.studies.components.config import Agree
from muonlab.studies.components.theory import flows
from muonlab.studies.components.work import agreeing, job


def run(config, folder, **options):
    return job.run(config=config.model_dump(mode="json"), folder=str(folder), **options)


@pytest.mark.kernels
def test_two_runs_of_one_job_write_the_same_bytes(make_job, tmp_path):
    config = make_job(net={"depth": 1, "width": 8}, optimizer={"name": "muon"}, rates=(0.03, 0.3), batch=7)
    for name in ("a", "b"):
        run(config, tmp_path / name)
    assert (tmp_path / "a" / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


def test_an_agreement_is_a_job_too(tmp_path):
    problem = {"noise": 0, "classes": 4, "dimension": 6}
    agree = Agree.model_validate({"components": problem, "flow": "gradient", "time": 1.0, "steps": (4, 8)})
    assert len(run(agree, tmp_path)["errors"]) == 2


@pytest.mark.parametrize(("field", "value"), [("rates", [-1]), ("eps", [0]), ("kept", True)])
def test_a_wrong_config_names_the_field_and_leaves_nothing_behind(make_job, tmp_path, field, value):
    config = make_job().model_dump(mode="json") | {field: value}
    with pytest.raises(ValueError, match=rf"simulate\.{field}"):
        job.run(config=config, folder=str(tmp_path / "job"))
    assert not (tmp_path / "job").exists()


# -- agreement -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"components": {"classes": 6, "ratio": 10, "rotation": 0.5}},
        {"loss": "squared"},
        {"loss": "squared", "components": {"patterns": "random", "strengths": (3.0, 2.0, 1.0), "rank": 3}},
    ],
)
def test_gradient_descent_goes_to_its_flow_at_first_order(agree, fields):
    result = agree(flow="gradient", **fields)
    assert result["orders"] == pytest.approx([1], abs=0.1)
    assert result["reasons"] == [None]
    assert result["errors"][-1] < 1e-2
    assert result["sizes"] == [2 / 50, 2 / 100]


def test_muon_on_softmax_is_its_flow_at_any_step_to_rounding(agree):
    result = agree(flow="spectral", components={"ratio": 8}, steps=(10, 20))
    assert max(result["errors"]) < 1e-12
    assert (result["orders"], result["reasons"]) == ([None], ["rounding"])


def test_muon_on_the_squared_loss_stops_within_a_step_of_its_flow(agree):
    result = agree(flow="spectral", loss="squared", time=3.0, steps=(40, 80))  # all components have come to rest
    # Each of 7 gains, 1 / s_k = 1 / 2 to 2, is at most a step away.
    gains = 1 / np.array([2.0, 1, 1, 0.5, 0.5, 0.5, 0.5])
    for error, size in zip(result["errors"], result["sizes"], strict=True):
        assert 0.01 * size < error < size * 7**0.5 / np.linalg.norm(gains)


def test_sign_descent_is_exact_at_small_logits_and_goes_there_as_time_goes_to_zero(agree):
    result = agree(flow="sign", time=1e-4, components={"classes": 4, "imbalance": 3.0}, steps=(10, 20, 40))
    assert max(result["errors"]) < 1e-9  # no sign has turned
    assert result["times"] == [1e-4, 5e-5, 2.5e-5]
    assert result["sizes"] == [time / steps for time, steps in zip(result["times"], (10, 20, 40), strict=True)]
    errors = agree(flow="sign", time=0.5, steps=(20, 40, 80))["errors"]
    assert errors[0] > errors[1] > errors[2]


def test_members_are_held_to_the_closed_form_and_not_to_each_other(agree, monkeypatch):
    monkeypatch.setitem(flows.LEARNT, "squared", lambda *arguments: 1.1 * flows.squared(*arguments))
    result = agree(flow="gradient", loss="squared", steps=(25, 50))
    assert result["errors"] == pytest.approx([0.1 / 1.1] * 2, rel=0.15)
    assert abs(result["orders"][0]) < 0.3


def test_steps_that_are_too_large_have_no_order_and_say_so(agree):
    result = agree(flow="gradient", loss="squared", time=1e6, steps=(100, 200))
    assert (result["errors"], result["orders"], result["reasons"]) == ([None, None], [None], ["diverged"])


def test_the_mean_of_the_loss_is_weighted_by_the_priors():
    job = Agree.model_validate(
        {"components": {"noise": 0, "imbalance": 4}, "flow": "sign", "loss": "squared", "time": 1, "steps": (1, 2)}
    )
    problem = agreeing.build_problem(job.components, 3)
    logits = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = agreeing._weighted(job, problem)(logits, torch.arange(8)).mean()
    targets = np.eye(8) - 1 / 8
    assert float(found) == pytest.approx(float(problem.priors @ ((logits.numpy() - targets) ** 2).sum(1) / 2))
