import copy
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW
from muonlab.testing.trial import expect_same, record
from optim.training import adamw_half, give, muon_alone, muon_half, parameter, train

HALVES = [muon_alone, muon_half, adamw_half]
SHAPES = [(6, 4), (4, 6), (3, 4, 4), (4, 2, 3, 3)]


def parameters(dtype=torch.float32, shapes=SHAPES):
    return [parameter(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]


# ------------------------------------------------------------------------------------------ gradients that are not fine


@pytest.mark.parametrize("make", HALVES)
def test_what_is_not_finite_is_refused_before_anything_is_changed(make):
    for bad in [float("nan"), float("inf"), -float("inf")]:
        for is_first in [True, False]:
            params = parameters()
            optimizer = make(list(zip("abcd", params, strict=True)))
            if not is_first:
                train(optimizer, params)
            give(params, 9)
            params[2].grad[1, 2, 3] = bad
            before = record(optimizer, params)
            with pytest.raises(
                ValueError, match=r"parameter c is not finite.*nothing has been changed.*nonfinite=\"skip\""
            ):
                optimizer.step()
            expect_same(before, record(optimizer, params), "after the refusal")


@pytest.mark.parametrize("make", HALVES)
def test_what_is_not_finite_is_left_out_and_counted(make):
    params = parameters()
    optimizer = make(params, nonfinite="skip")
    train(optimizer, params)
    assert optimizer.num_skipped == 0
    before = record(optimizer, params)
    for _ in range(2):
        give(params, 9)
        params[1].grad[0, 0] = torch.inf
        params[3].grad[0, 0, 0, 0] = torch.nan
        optimizer.step()
    assert optimizer.num_skipped == 4
    after = record(optimizer, params)
    for index in (1, 3):
        assert torch.equal(after.values[index], before.values[index])
        assert all(torch.equal(value, before.states[index][name]) for name, value in after.states[index].items())
    for index in (0, 2):
        assert not torch.equal(after.values[index], before.values[index])
    # It is counted on by whom the state goes to.
    twin = make(parameters(), nonfinite="skip")
    twin.load_state_dict(optimizer.state_dict())
    assert twin.num_skipped == 4


def test_a_group_that_refuses_spares_those_that_would_skip():
    first, second = parameters(shapes=[(6, 4), (4, 6)])
    optimizer = Muon([{"params": [first], "nonfinite": "skip"}, {"params": [second]}])
    give([first, second])
    first.grad[0, 0] = second.grad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="parameter 0 of group 1 is not finite"):
        optimizer.step()
    assert optimizer.num_skipped == 0
    p = parameter(6, 4)
    p.grad = torch.full((6, 4), 3e38)  # finite, though its square is not
    Muon([p]).step()
    assert torch.isfinite(p).all()


def test_a_sparse_gradient_is_refused_by_the_name_of_its_parameter():
    net = nn.ModuleDict({"wte": nn.Embedding(5, 4, sparse=True), "inner": nn.Linear(4, 4)})
    optimizer = MuonAdamW(net)
    net["inner"](net["wte"](torch.tensor([1, 2]))).sum().backward()
    before = record(optimizer, list(net.parameters()))
    with pytest.raises(ValueError, match=r"wte\.weight is sparse.*sparse=False.*SparseAdam"):
        optimizer.step()
    expect_same(before, record(optimizer, list(net.parameters())), "after the refusal")


# ----------------------------------------------------------------------------------------------------- saved and loaded


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


RESUME = """
import sys, torch
from torch import nn
from optim.training import train
from muonlab import MuonAdamW
saved = torch.load(sys.argv[1], weights_only=True)
params = [nn.Parameter(value) for value in saved["params"]]
optimizer = MuonAdamW([{"params": params[:3], "rule": "muon"}, {"params": params[3:], "rule": "adamw"}])
optimizer.load_state_dict(saved["optimizer"])
ends = train(optimizer, params, 3, first=4)
torch.save({"params": ends, "optimizer": optimizer.state_dict()}, sys.argv[2])
"""


def test_another_process_goes_on_bit_for_bit(tmp_path):
    dtypes = [torch.float32, torch.bfloat16, torch.complex64, torch.bfloat16]
    params = [
        parameter(*shape, seed=seed, dtype=dtype)
        for seed, (shape, dtype) in enumerate(zip(SHAPES, dtypes, strict=True))
    ]
    groups = [{"params": params[:3], "rule": "muon"}, {"params": params[3:], "rule": "adamw"}]
    optimizer = MuonAdamW(
        groups, lr=0.1, momentum=0.8, weight_decay=0.2, nesterov=False, adamw_lr=0.01, betas=(0.8, 0.9)
    )
    optimizer.param_groups[0].update(adjust_lr_fn="match_rms_adamw", method="polar_express", ns_steps=4)
    train(optimizer, params, 3)
    torch.save({"params": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "saved")
    command = [sys.executable, "-c", RESUME, str(tmp_path / "saved"), str(tmp_path / "resumed")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(command, check=True, env=environment)
    resumed = torch.load(tmp_path / "resumed", weights_only=True)
    for seen, expected in zip(resumed["params"], train(optimizer, params, 3, first=4), strict=True):
        assert torch.equal(seen, expected)
    expected = optimizer.state_dict()
    assert resumed["optimizer"]["param_groups"] == expected["param_groups"]
    for number, state in expected["state"].items():
        for name, value in state.items():
            assert torch.equal(resumed["optimizer"]["state"][number][name], value)
            assert resumed["optimizer"]["state"][number][name].dtype == value.dtype


HYPER = {
    "lr": 0.5, "weight_decay": 0.25, "momentum": 0.5, "nesterov": False, "ns_coefficients": (2.0, -1.5, 0.5),
    "eps": 1e-3, "ns_steps": 3, "adjust_lr_fn": "spectral", "method": "quintic", "ns_dtype": torch.float64,
    "cautious": True, "nonfinite": "skip", "variant": "normuon", "beta2": 0.5, "rounding": "nearest",
    "state_dtype": torch.float64, "capturable": True, "equilibrate": "row", "renormalize": "col", "update_floor": 0.5,
    "hyperball": False, "decay": "decoupled", "lookahead": 0.5, "lookahead_decay": 0.9,
}  # fmt: skip


def test_every_hyper_parameter_is_restored():
    params = parameters()
    optimizer = Muon(params, **HYPER)
    train(optimizer, params)
    twin = Muon(parameters())
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    for name, value in HYPER.items():
        assert twin.param_groups[0][name] == value
    assert set(HYPER) == set(optimizer.defaults) - {"rule"} - {"differentiable"}


def test_loading_shares_no_memory_with_what_is_loaded():
    for make in HALVES:
        params, twins = parameters(), parameters()
        optimizer, twin = make(params), make(twins)
        train(optimizer, params)
        twin.load_state_dict(optimizer.state_dict())
        with torch.no_grad():
            for p, other in zip(twins, params, strict=True):
                p.copy_(other)
        before = record(optimizer, params)
        train(twin, twins, 2, first=4)
        expect_same(before, record(optimizer, params), "after steps of the one that loaded its state")


@pytest.mark.parametrize("make", HALVES)
def test_the_state_keeps_its_dtypes(make):
    for options in [{}, {"state_dtype": torch.float64}, {"rounding": "remainder"}]:
        params, twins = parameters(torch.bfloat16), parameters(torch.bfloat16)
        optimizer, twin = make(params, **options), make(twins)
        train(optimizer, params)
        twin.load_state_dict(through_a_file(optimizer.state_dict()))
        wide = {torch.float32, options.get("state_dtype", torch.float32)}
        for p, other in zip(params, twins, strict=True):
            for name, value in optimizer.state[p].items():
                assert twin.state[other][name].dtype == value.dtype
                assert value.dtype in ({torch.int16} if name == "remainder" else wide)


def test_the_step_of_adamw_is_loaded_to_where_its_kernel_counts():
    # A file read with map_location="cpu", for parameters on another device.
    params = parameters(shapes=[(6, 4)])
    optimizer = adamw_half(params)
    train(optimizer, params)
    elsewhere = nn.Parameter(torch.empty(6, 4, device="meta"))
    other = adamw_half([elsewhere])
    other.load_state_dict(optimizer.state_dict())
    assert {value.device.type for value in other.state[elsewhere].values()} == {"meta"}


def test_a_function_as_adjust_lr_fn_is_the_constructors():
    def half(shape):
        return 0.5

    params = parameters()
    optimizer = Muon(params, lr=0.1, adjust_lr_fn=half)
    train(optimizer, params)
    saved = through_a_file(optimizer.state_dict())  # a function could not be read with weights_only
    assert optimizer.param_groups[0]["adjust_lr_fn"] is half
    twin = Muon(parameters(), adjust_lr_fn=half)
    twin.load_state_dict(saved)
    assert twin.param_groups[0]["adjust_lr_fn"] is half
    assert twin.param_groups[0]["lr"] == 0.1


# -------------------------------------------------------------------------------------------- a state of something else


def refuses(optimizer, params, state_dict):
    """Expect a ValueError and nothing changed; return what it says."""
    before = record(optimizer, params)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        optimizer.load_state_dict(state_dict)
    expect_same(before, record(optimizer, params), "after the refusal")
    return str(refusal.value)


def test_the_state_of_another_model_is_refused():
    for make in HALVES:
        for shapes, words in [
            (SHAPES[:3], "groups of [3] parameters, the optimizer of [4]"),
            ([*SHAPES, (2, 2)], "groups of [5] parameters, the optimizer of [4]"),
            (
                [(6, 4), (6, 4), (3, 4, 4), (4, 2, 3, 3)],
                "of shape (6, 4) for parameter 1 of group 0, whose shape is (4, 6)",
            ),
            ([(6, 4), (4, 6), (3, 4, 4), (4, 18)], "parameter 3 of group 0"),
        ]:
            others, params = parameters(shapes=shapes), parameters()
            other, optimizer = make(others), make(params)
            train(other, others)
            train(optimizer, params, 1)
            other.param_groups[0]["lr"] = 0.7
            message = refuses(optimizer, params, other.state_dict())
            assert words in message
            assert "expected" in message
    params = parameters()
    halves = Muon([{"params": params[:2]}, {"params": params[2:]}])
    assert "groups of [2, 2] parameters, the optimizer of [4]" in refuses(Muon(params), params, halves.state_dict())


def test_the_state_of_another_rule_is_refused():
    params = parameters()
    muon, adamw, alone = muon_half(params), adamw_half(params), Muon(params)
    assert "rule='muon' for parameters that here have rule 'adamw'" in refuses(adamw, params, muon.state_dict())
    assert "rule='adamw'" in refuses(muon, params, adamw.state_dict())
    oracle = torch.optim.AdamW(params)
    train(oracle, params, 1)
    message = refuses(alone, params, oracle.state_dict())
    assert "['exp_avg', 'exp_avg_sq', 'step'] for parameter 0 of group 0" in message
    assert "momentum_buffer" in message


def test_a_state_with_hyper_parameters_out_of_range_is_refused():
    for change, words in [
        ({"momentum": 1.5}, "momentum=1.5"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"ns_steps": 0}, "ns_steps=0"),
        ({"method": "newton"}, "method='newton'"),
        ({"capturable": True}, "capturable=True"),
        ({"layouts": [("experts", None)] * 4}, "(6, 4)"),
        ({"layouts": [(None, 5)] * 4}, "split=5"),
    ]:
        params = parameters()
        optimizer = Muon(params)
        train(optimizer, params)
        state_dict = optimizer.state_dict()
        state_dict["param_groups"][0].update(change)
        message = refuses(optimizer, params, state_dict)
        assert message.startswith("state_dict, group 0: ")
        assert words in message


def test_what_torchs_adamw_can_do_and_this_cannot_is_refused():
    for name in ["maximize", "amsgrad"]:
        params = parameters()
        oracle = torch.optim.AdamW(params, **{name: True})
        train(oracle, params, 1)
        assert f"{name}=True" in refuses(adamw_half(params), params, oracle.state_dict())


# ------------------------------------------------------------------------------------------------ copies that are whole


def test_a_group_can_be_added_to_a_copy():
    for copy_of in [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))]:
        named = list(zip("abcd", parameters(), strict=True))
        optimizer = Muon(named, split={"a": 2})
        twin = copy_of(optimizer)
        twin.add_param_group({"params": [("a", parameter(8, 4))]})
        assert [group["layouts"] for group in twin.param_groups] == [
            [(None, 2), (None, None), (None, None), (None, None)],
            [(None, 2)],
        ]
        both = copy_of(muon_half(parameters(), adamw_lr=0.125))
        both.add_param_group({"params": [parameter(5)], "rule": "adamw"})
        assert both.param_groups[1]["lr"] == 0.125
        train(both, [p for group in both.param_groups for p in group["params"]])


def test_added_groups_are_checked_before_they_are_added():
    params = parameters()
    optimizer = Muon(params)
    before = record(optimizer, params)
    for group, error in [
        ({"params": [parameter(5)]}, ValueError),
        ({"params": [parameter(5, 4)], "lr": -1}, ValueError),
        ({"params": [parameter(5, 4)], "rule": "adamw"}, ValueError),
        ({"params": [params[0]]}, ValueError),
        ({"params": [("name", parameter(5, 4))]}, ValueError),  # the others have none
        ({"params": {parameter(5, 4)}}, TypeError),
        ({"params": ["weight"]}, TypeError),
    ]:
        with pytest.raises(error):
            optimizer.add_param_group(group)
        expect_same(before, record(optimizer, params), "after the refusal")
    optimizer.add_param_group({"params": parameter(5, 4)})
    assert optimizer.param_groups[1]["lr"] == optimizer.defaults["lr"]
