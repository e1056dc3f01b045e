"""Muon's step on parameters of any shape, dtype and order of memory: captured, compiled, and tile by tile."""

from itertools import product

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW
from muonlab.rules.polar import METHODS
from optim.training import draw, follow_the_rule, give, muon_alone, parameter, train

# Two that are stacked, their transpose, experts, a convolution with more rows than columns, another of equal flat
# shape, a single row, and one that is in three blocks.
SHAPES = {
    "a": (6, 4),
    "b": (6, 4),
    "c": (4, 6),
    "experts": (3, 6, 4),
    "conv": (8, 2, 1, 3),
    "deeper": (8, 1, 1, 2, 3),
    "row": (1, 5),
    "qkv": (12, 4),
    "uneven": (9, 4),
}
SPLIT = {"qkv": 3, "uneven": (4, 2, 3)}
OPTIONS = [
    {},
    {"nesterov": False, "momentum": 0.0, "weight_decay": 0.0},
    {"lr": torch.tensor(0.1, dtype=torch.float64), "weight_decay": torch.tensor(0.5, dtype=torch.float64)},
    {"cautious": True, "lr": torch.tensor(0.1, dtype=torch.float64), "nesterov": False},
    {"variant": "adamuon", "beta2": 0.7},
    {"variant": "normuon", "cautious": True, "adjust_lr_fn": "match_rms_adamw", "nesterov": False},
    {"adjust_lr_fn": lambda shape: 0.1 + shape[0] / (1 + shape[1])},
    *({"method": each} for each in METHODS if each not in ("auto", "quintic")),
    {"method": "polar_express", "ns_steps": 7, "adjust_lr_fn": "spectral"},
    {"ns_steps": 3},
]


def name_of(value):
    return " ".join(f"{key}={getattr(each, '__name__', each)}" for key, each in value.items()) or "default"


def expected_of(name, start, gradients, **hyper):
    """What the rule makes of a parameter of any shape: of each of its matrices, apart."""
    if len(SHAPES[name]) > 3:
        flat = follow_the_rule(start.flatten(1), [gradient.flatten(1) for gradient in gradients], **hyper)
        return flat.reshape(start.shape)
    blocks = SPLIT.get(name)
    if blocks is None:
        return follow_the_rule(start, gradients, **hyper)
    sizes = [len(start) // blocks] * blocks if isinstance(blocks, int) else list(blocks)
    columns = zip(*(x.split(sizes) for x in (start, *gradients)), strict=True)
    return torch.cat([follow_the_rule(p, list(parts), **hyper) for p, *parts in columns])


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_the_step_is_the_rule_in_float64(options):
    options = {"lr": 0.1, "method": "quintic", "weight_decay": 0.3, "momentum": 0.9, **options}
    params = {
        name: parameter(*shape, seed=seed, dtype=torch.float64) for seed, (name, shape) in enumerate(SHAPES.items())
    }
    starts = {name: p.detach().clone() for name, p in params.items()}
    optimizer = muon_alone(list(params.items()), split=SPLIT, **options)
    train(optimizer, params.values(), 3)
    hyper = {key: value for key, value in options.items() if key != "ns_steps"}
    if "ns_steps" in options:
        hyper["steps"] = options["ns_steps"]
    for number, (name, p) in enumerate(params.items()):
        gradients = [draw(*p.shape, seed=1000 * step + number) for step in range(1, 4)]
        expected = expected_of(name, starts[name], gradients, **hyper)
        # Stacked and single products round differently, and an iteration lifts that.
        torch.testing.assert_close(
            p.detach(), expected, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_matrices_and_many_of_them_follow_the_rule_too(dtype):
    # In float32 an update near zero may have either sign.
    options = {"lr": 0.1, "method": "polar_express", "weight_decay": 0.3, "cautious": dtype == torch.float64}
    shapes = [(300, 256), (256, 300), (24, 128, 96), (24, 16, 9, 32)]
    params = [parameter(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    starts = [p.detach().clone() for p in params]
    train(Muon(params, **options), params, 2)
    for number, (p, start) in enumerate(zip(params, starts, strict=True)):
        gradients = [draw(*p.shape, seed=1000 * step + number, dtype=dtype) for step in (1, 2)]
        flat = [x.flatten(1) if x.ndim == 4 else x for x in (start, *gradients)]
        expected = follow_the_rule(flat[0], flat[1:], **options).reshape(p.shape)
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-10)


def test_auto_is_close_to_the_polar_factor():
    for shape in [(64, 64), (48, 200), (300, 256)]:
        p = nn.Parameter(torch.zeros(shape))
        train(Muon([p], lr=1.0, adjust_lr_fn="none"), [p], 1)
        U, _, Vh = torch.linalg.svd(draw(*shape, seed=1000), full_matrices=False)
        assert torch.nn.functional.cosine_similarity(-p.detach().double().flatten(), (U @ Vh).flatten(), dim=0) > 0.99


def test_coefficients_of_the_quintic():
    ends = []
    for options in (
        {"method": "quintic"},
        {"ns_coefficients": (3.4445, -4.7750, 2.0315)},
        {"ns_coefficients": [2, -1.5, 0.5]},
    ):
        p = parameter(5, 4, dtype=torch.float64)
        ends += train(Muon([p], lr=0.1, **options), [p], 2)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
    assert not torch.allclose(ends[0], ends[2], atol=1e-3)


def test_products_in_bfloat16_are_close_and_not_equal():
    ends = []
    for dtype in (None, torch.bfloat16, torch.float64):
        p = parameter(16, 12)
        ends += train(Muon([p], lr=0.1, method="quintic", ns_dtype=dtype), [p], 1)
    way = (ends[0] - draw(16, 12, dtype=torch.float32)).norm()
    assert 1e-4 * way < (ends[1] - ends[0]).norm() < 0.03 * way
    assert (ends[2] - ends[0]).norm() < 1e-5 * way


def test_the_momentum_may_be_kept_in_another_dtype():
    for state_dtype in [torch.bfloat16, torch.float32]:
        p, twin = parameter(8, 6, dtype=torch.float64), parameter(8, 6, dtype=torch.float64)
        optimizer = Muon([p], lr=0.1, method="exact", state_dtype=state_dtype)
        (seen,), (expected,) = train(optimizer, [p], 5), train(Muon([twin], lr=0.1, method="exact"), [twin], 5)
        assert optimizer.state[p]["momentum_buffer"].dtype == state_dtype
        assert 0 < (seen - expected).norm() < 10 * torch.finfo(state_dtype).eps * (expected - draw(8, 6)).norm()


def test_a_dtype_of_the_state_says_nothing_of_whether_it_is_complex():
    # A complex momentum of a real parameter would be cast, with a warning; the real one of a complex parameter is half.
    for dtype, state_dtype in ((torch.float32, torch.complex64), (torch.complex64, torch.float32)):
        p = parameter(4, 3, dtype=dtype)
        optimizer = Muon([p], state_dtype=state_dtype)
        train(optimizer, [p])
        assert optimizer.state[p]["momentum_buffer"].dtype == dtype


# ------------------------------------------------------------------------------------------ what a loop may throw at it


def test_a_parameter_without_entries_is_no_trouble():
    for capturable, shape in product([False, True], [(0, 3), (3, 0), (0, 4, 4), (0, 2, 3, 3)]):
        empty, other = parameter(*shape), parameter(4, 3)
        optimizer = Muon([empty, other], lr=0.1, capturable=capturable, nonfinite="skip", variant="normuon")
        before = other.detach().clone()
        (_, after) = train(optimizer, [empty, other])
        assert not torch.equal(before, after)
        optimizer.load_state_dict(optimizer.state_dict())
        train(optimizer, [empty, other], first=4)


@pytest.mark.parametrize("method", ["auto", "quintic", "exact"])
def test_the_size_of_gradients_does_not_matter(method):
    ends, factors = [], (1.0, 1e-38, 1e-30, 1e-12, 1e12, 1e30, 1e38)
    for factor in factors:
        params = [nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(96, 80))]  # the second goes by tiles
        optimizer = Muon(params, lr=1.0, method=method)
        for _ in range(2):
            for p in params:
                p.grad = draw(*p.shape, seed=1, dtype=torch.float32).clamp(-3, 3) * factor
            optimizer.step()
        ends.append([p.detach() for p in params])
    for end, scale in zip(ends, factors, strict=True):
        # Below 1e-37 numbers of float32 lose bits, and (1 - momentum) takes more.
        torch.testing.assert_close(end, ends[0], rtol=0, atol=0.02 if scale == 1e-38 else 1e-3)


def test_dtypes_may_be_mixed_in_a_group():
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.float16]
    params = [parameter(4, 3, seed=seed, dtype=dtype) for seed, dtype in enumerate(dtypes)]
    ends = train(Muon(params, lr=0.1, method="exact"), params, 2)
    for number, (p, dtype) in enumerate(zip(params, dtypes, strict=True)):
        wide = torch.complex128 if dtype.is_complex else torch.float64
        start = draw(4, 3, seed=number, dtype=dtype).to(wide)
        gradients = [draw(4, 3, seed=1000 * step + number, dtype=dtype).to(wide) for step in (1, 2)]
        expected = follow_the_rule(start, gradients, lr=0.1, weight_decay=0.1, method="exact")
        torch.testing.assert_close(ends[number].to(wide), expected, rtol=0, atol=16 * torch.finfo(p.dtype).eps)


# -------------------------------------------------------------------------------------------------------- tile by tile


# Contiguous matrices on a CPU are stepped tile by tile, those whose memory is transposed are not: no difference.
TILED = {
    "of one tile": [(96, 64), (64, 96), (96, 64)],
    "of several tiles": [(300, 256), (256, 300)],
    "wider than a tile": [(2, 70_000)],
    "experts": [(5, 96, 64), (2, 300, 256)],
    "convolutions": [(64, 16, 3, 3), (96, 96, 3, 3)],
}


def ends(shapes, is_plain, gradients, dtype=torch.float32, num_steps=2, **options):
    params = []
    for seed, shape in enumerate(shapes):
        start = draw(*shape, seed=seed, dtype=dtype)
        params.append(nn.Parameter(start if is_plain else start.transpose(0, 1).contiguous().transpose(0, 1)))
    optimizer = Muon([(f"p{number}", p) for number, p in enumerate(params)], **{"lr": 0.1, **options})
    for step in range(num_steps):
        for number, p in enumerate(params):
            p.grad = gradients(step, number, p.shape).to(dtype)
        optimizer.step()
    return [p.detach() for p in params], [optimizer.state[p]["momentum_buffer"] for p in params]


def ordinary(step, number, shape):
    return draw(*shape, seed=100 * (step + 1) + number, dtype=torch.float32)


def expect_alike(shapes, gradients=ordinary, tolerance=1e-4, **options):
    """The tolerance is a share of the way."""
    (tiled, momenta), (plain, expected) = (ends(shapes, is_plain, gradients, **options) for is_plain in (True, False))
    for number, (seen, other) in enumerate(zip(tiled, plain, strict=True)):
        start = draw(*shapes[number], seed=number, dtype=seen.dtype)
        assert torch.isfinite(seen).all()
        assert (seen - other).norm() <= tolerance * (other - start).norm()
    for seen, other in zip(momenta, expected, strict=True):
        torch.testing.assert_close(seen, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("name", TILED)
def test_tiles_make_no_difference(name):
    for nesterov in [True, False]:
        expect_alike(TILED[name], nesterov=nesterov, weight_decay=0.5, method="polar_express")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float64, "tolerance": 1e-12},
        {"method": "gram"},
        {"method": "aol"},
        {"weight_decay": 0.0},
        {"lr": torch.tensor(0.1), "weight_decay": torch.tensor(0.5)},
        {"split": {"p0": 2}},
        {"split": {"p0": (16, 80)}},
        {"momentum": 0.0},
        {"adjust_lr_fn": "spectral"},
    ],
    ids=str,
)
def test_options_make_no_difference(options):
    expect_alike([(96, 64), (96, 64), (3, 96, 64), (64, 90)], **options)


@pytest.mark.parametrize(
    "scales", [(1e-30, 1e-30), (1e30, 1e30), (1e30, 1.0), (1e-30, 1.0), (1.0, 1e-30), (1e-18, 1e-14)]
)
def test_gradients_of_any_size_make_no_difference(scales):
    def gradients(step, number, shape):
        return ordinary(step, number, shape) * scales[step]

    for ns_dtype, tolerance in ((None, 1e-3), (torch.bfloat16, 0.1)):
        expect_alike([(96, 64), (64, 96)], gradients, tolerance, method="polar_express", ns_dtype=ns_dtype)


def test_zero_gradients_leave_a_matrix_to_its_decay_beside_others():
    def gradients(step, number, shape):
        return torch.zeros(shape) if number == 0 else ordinary(step, number, shape)

    shapes = [(96, 64), (96, 64), (64, 96)]
    (params, _) = ends(shapes, True, gradients, weight_decay=0.5, num_steps=1)
    torch.testing.assert_close(params[0], 0.95 * draw(96, 64, dtype=torch.float32))
    expect_alike(shapes, gradients)


# ------------------------------------------------------------------------------------------------------- captured steps


CAPTURED = {"capturable": True, "nonfinite": "skip"}
VARIED = [
    {},
    {"nesterov": False, "weight_decay": 0.0},
    {"cautious": True},
    {"variant": "adamuon"},
    {"lr": torch.tensor(0.1, dtype=torch.float64), "weight_decay": torch.tensor(0.2, dtype=torch.float64)},
]


@pytest.mark.parametrize("options", VARIED, ids=name_of)
def test_capturable_makes_no_difference_to_the_update(options):
    for dtype in [torch.float32, torch.bfloat16, torch.float64, torch.complex64]:
        ends = []
        for extra in ({}, CAPTURED):
            params = [
                parameter(*shape, seed=seed, dtype=dtype)
                for seed, shape in enumerate([(6, 4), (4, 6), (3, 4, 4), (4, 2, 3, 3)])
            ]
            ends.append(train(Muon(params, **{"lr": 0.1, **options, **extra}), params))
        for seen, expected in zip(*ends, strict=True):
            torch.testing.assert_close(
                seen, expected, rtol=0, atol=32 * torch.finfo(dtype).eps * float(expected.abs().max())
            )


@pytest.mark.parametrize("options", VARIED, ids=name_of)
def test_capturable_leaves_out_a_step_that_is_not_finite_without_looking(options):
    for rounding in ["stochastic", "remainder"]:
        for dtype in [torch.float32, torch.bfloat16]:
            params = [parameter(6, 4, seed=seed, dtype=dtype) for seed in range(2)]
            optimizer = Muon(params, **{"lr": 0.1, "rounding": rounding, **options, **CAPTURED})
            train(optimizer, params, 2)
            before = [p.detach().clone() for p in params], {k: v.clone() for k, v in optimizer.state[params[0]].items()}
            for bad in (float("nan"), float("inf"), -float("inf")):
                for p in params:
                    p.grad = draw(6, 4, seed=7, dtype=dtype)
                params[0].grad[2, 1] = bad
                optimizer.step()
            assert optimizer.num_skipped == 3
            assert all(torch.equal(p.detach(), old) for p, old in zip(params, before[0], strict=True))
            for name, value in optimizer.state[params[0]].items():
                if name != "step":  # it tells noise from noise, and the host may not know that it is not needed
                    assert torch.equal(value, before[1][name]), name
            assert all(torch.isfinite(p).all() for p in train(optimizer, params, 2, first=3))


def test_a_captured_graph_could_be_replayed():
    """All that a step reads and writes stays where it is: what a graph was captured with is what it will use again."""
    params = [parameter(6, 4, seed=seed, dtype=dtype) for seed, dtype in enumerate([torch.float32, torch.bfloat16])]
    for rounding in ("stochastic", "remainder"):
        optimizer = Muon(params, lr=torch.tensor(0.1), rounding=rounding, variant="normuon", **CAPTURED)
        train(optimizer, params, 1)
        places = [(p, name, value.data_ptr()) for p in params for name, value in optimizer.state[p].items()]
        counter = optimizer.param_groups[0]["num_skipped"]
        train(optimizer, params, 2)
        assert all(optimizer.state[p][name].data_ptr() == place for p, name, place in places)
        assert optimizer.param_groups[0]["num_skipped"] is counter


# -------------------------------------------------------------------------------------------------------- torch.compile


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(
    ("is_of_muon", "options"), [(True, {"variant": "normuon", "cautious": True}), (False, {})], ids=str
)
def test_a_step_is_one_graph_and_is_not_compiled_again_when_lr_and_decay_change(is_of_muon, options):
    torch.compiler.reset()
    ends, compilations = [], []

    def count(module, example_inputs):
        compilations.append(module)
        return module.forward

    for is_compiled in (False, True):
        params = [parameter(4, 6), parameter(6, 4, seed=1), parameter(4, 4, seed=2, dtype=torch.bfloat16)]
        live = {name: torch.tensor(0.1) for name in ("lr", "weight_decay")}
        if is_of_muon:
            optimizer = Muon(params, **live, **options, **CAPTURED)
        else:
            params.append(parameter(5, seed=3, dtype=torch.complex64))
            live |= {f"adamw_{name}": torch.tensor(0.1) for name in ("lr", "weight_decay")}
            groups = [{"params": params[:3], "rule": "muon"}, {"params": params[3:], "rule": "adamw"}]
            optimizer = MuonAdamW(groups, **live, **options, **CAPTURED)
        train(optimizer, params, 1)  # the state comes to be
        step = torch.compile(optimizer.step, backend=count, fullgraph=True) if is_compiled else optimizer.step
        for number in range(2, 6):
            for value in live.values():
                value.mul_(0.7)
            give(params, number)
            if number == 4:
                params[0].grad[0, 0] = torch.nan
            step()
        assert optimizer.num_skipped == 1
        ends.append([p.detach() for p in params])
    torch.testing.assert_close(*reversed(ends), rtol=0, atol=1e-5)
    assert len(compilations) == 1
