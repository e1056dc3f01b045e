"""What torch expects of every optimizer, by its own machinery: inputs, errors, schedulers, flags and skips of entries.

    python tests/optim/torch_suite.py    # prints JSON: what came of each test, and the differences

torch's own entries pass it as well. Compiled steps are in test_graphs.py.
"""
# ruff: noqa: PT009, PT027, N802, N815 - torch's TestCase compares tensors, and unittest names its methods

import io
import json
import unittest
from copy import deepcopy
from functools import partial

import torch
from optimizer_info import AS_ADAMW, DECAY_OF_ADAMW, DIFFERENCES, FLAGS, INFOS, common
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import (
    OptimizerErrorEnum,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optims,
)
from torch.testing._internal.common_utils import TestCase


def drawn(device, dtype, *shapes, seed=0):
    """Return parameters, two matrices by default."""
    generator = torch.Generator(device).manual_seed(seed)
    shapes = shapes or ((4, 3), (3, 5))
    return [nn.Parameter(torch.randn(shape, generator=generator, device=device, dtype=dtype)) for shape in shapes]


def give(params, step=0):
    for number, p in enumerate(params):
        (like,) = drawn(p.device, p.dtype, p.shape, seed=1 + 100 * step + number)
        p.grad = like.detach()


def train(optimizer, params, steps=range(3)):
    for step in steps:
        give(params, step)
        optimizer.step()
    return [p.detach().clone() for p in params]


def rate(kwargs):
    """Return the name of the learning rate among the arguments."""
    return AS_ADAMW["lr"] if kwargs.get("rule") == "adamw" else "lr"


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def each_configuration(check):
    """Return a test that calls `check(test, kwargs, optimizer, params, make)` for whatever torch would try."""

    def test(self, device, dtype, optim_info):
        for each in _get_optim_inputs_including_global_cliquey_kwargs(device, dtype, optim_info, ("differentiable",)):
            kwargs = each.kwargs
            if isinstance(kwargs.get("lr"), torch.Tensor) and (kwargs.get("fused") or kwargs.get("foreach")):
                continue  # which torch has on a GPU alone
            with self.subTest(each.desc):
                params = drawn(device, dtype)
                make = partial(optim_info.optim_cls, **deepcopy(kwargs))
                check(self, kwargs, make(params), params, make)

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


class TestOptimRenewed(TestCase):
    @optims(INFOS)
    def test_errors(self, device, dtype, optim_info):
        for each in optim_info.optim_error_inputs_func(device, dtype):
            given = each.optimizer_error_input
            with self.subTest(given.desc):
                params = drawn(device, dtype) if given.params is None else given.params
                if issubclass(each.error_type, Warning):
                    with self.assertWarnsRegex(each.error_type, each.error_regex):
                        optim_info.optim_cls(params, **given.kwargs)
                elif each.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR:
                    with self.assertRaisesRegex(each.error_type, each.error_regex):
                        optim_info.optim_cls(params, **given.kwargs)
                else:
                    optimizer = optim_info.optim_cls(params, **given.kwargs)
                    with self.assertRaisesRegex(each.error_type, each.error_regex):
                        optimizer.step()

    @optims(INFOS)
    def test_flags_that_are_not_supported_are_refused(self, device, dtype, optim_info):
        accepted = {name for each in optim_info.optim_inputs_func(device) for name in each.kwargs}
        for flag in sorted(set(FLAGS) - set(optim_info.supported_impls) - accepted):
            with self.subTest(flag), self.assertRaises(TypeError):
                optim_info.optim_cls(drawn(device, dtype), **common(optim_info), **{flag: True})

    @optims(INFOS)
    def test_empty_parameters_are_refused(self, device, dtype, optim_info):
        with self.assertRaisesRegex(ValueError, "empty parameter list|nothing to train"):
            optim_info.optim_cls([], **common(optim_info))

    @optims(INFOS)
    @each_configuration
    def test_goes_right_direction(self, kwargs, optimizer, params, make):
        away = kwargs.get("maximize", False)
        for is_contiguous in (True, False):
            if not is_contiguous:
                params = [nn.Parameter(p.detach().mT.contiguous().mT) for p in params]
                optimizer = make(params)
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(0.01) if isinstance(group["lr"], torch.Tensor) else 0.01

            def closure(optimizer=optimizer, params=params):
                optimizer.zero_grad()
                loss = sum((p - 0.1).square().sum() for p in params)
                loss.backward()
                return loss.detach()

            losses = [float(optimizer.step(closure)) for _ in range(6)]
            self.assertGreater(losses[-1] if away else losses[0], losses[0] if away else losses[-1])

    @optims(INFOS)
    def test_schedulers(self, device, dtype, optim_info):
        for schedulers in optim_info.scheduler_inputs:
            params = drawn(device, dtype)
            optimizer = optim_info.optim_cls(params, **common(optim_info))
            made = [make(optimizer) for make in schedulers]
            before = float(optimizer.param_groups[0]["lr"])
            give(params)
            for _ in range(25):
                optimizer.step()
                for each in made:
                    each.step(*((1.0,) if hasattr(each, "patience") else ()))
            self.assertLess(float(optimizer.param_groups[0]["lr"]), before)

    @optims(INFOS)
    @each_configuration
    def test_param_groups(self, kwargs, optimizer, params, make):
        """A group's own lr and decay hold."""
        optimizer = make([{"params": params[:1], "lr": 0.0}, {"params": params[1:]}])
        before = [p.detach().clone() for p in params]
        after = train(optimizer, params)
        if kwargs.get("decay") != "independent":
            self.assertEqual(before[0], after[0])
        self.assertNotEqual(before[1], after[1])
        ends = []
        for decay in (0.0, 0.5):
            (p,) = drawn(params[0].device, params[0].dtype, (4, 3))
            ends += train(make([{"params": [p], "weight_decay": decay}]), [p])
        if not kwargs.get("hyperball"):  # which holds norms instead
            self.assertNotEqual(*ends)

    @optims(INFOS)
    @each_configuration
    def test_tensor_lr(self, kwargs, optimizer, params, make):
        """lr as a number, and as a tensor without axes or with one: the same, and never changed."""
        if kwargs.get("foreach") or kwargs.get("fused"):
            return
        ends = []
        for lr in (0.01, torch.tensor(0.01), torch.tensor([0.01])):
            own = [nn.Parameter(p.detach().clone()) for p in params]
            ends.append(train(make(own, **{rate(kwargs): lr}), own))
            self.assertEqual(float(lr), 0.01)
        for end in ends[1:]:
            self.assertEqual(ends[0], end)

    @optims([info for info in INFOS if info.supports_complex])
    @each_configuration
    def test_complex_goes_right_direction(self, kwargs, optimizer, params, make):
        params = drawn(params[0].device, torch.complex64)
        if kwargs.get("state_dtype") is not None or kwargs.get("maximize") or kwargs.get("fused"):
            return  # of real parameters
        optimizer = make(params, **{rate(kwargs): 0.01})
        before = sum((p.detach() - 0.1).abs().square().sum() for p in params)
        for _ in range(20):
            for p in params:
                p.grad = 2 * (p.detach() - 0.1)
            optimizer.step()
        self.assertLess(sum((p.detach() - 0.1).abs().square().sum() for p in params), before)

    @optims([info for info in INFOS if info.supports_complex])
    @each_configuration
    def test_complex_is_two_real_ones(self, kwargs, optimizer, params, make):
        params = drawn(params[0].device, torch.complex64)
        if kwargs.get("fused"):
            return
        reals = [nn.Parameter(torch.view_as_real(p.detach()).clone()) for p in params]
        optimizers = make(params), make(reals)
        for step in range(3):
            give(params, step)
            for p, real in zip(params, reals, strict=True):
                real.grad = torch.view_as_real(p.grad).clone()
            for each in optimizers:
                each.step()
        for p, real in zip(params, reals, strict=True):
            self.assertEqual(torch.view_as_real(p.detach()), real.detach())

    @optims(INFOS)
    @each_configuration
    def test_without_gradients_nothing_changes(self, kwargs, optimizer, params, make):
        before = [p.detach().clone() for p in params]
        optimizer.step()
        self.assertEqual(before, [p.detach() for p in params])
        self.assertEqual(len(optimizer.state_dict()["state"]), 0)

    @optims(INFOS)
    @each_configuration
    def test_zero_gradients_change_nothing_but_by_decay(self, kwargs, optimizer, params, make):
        optimizer = make(params, **{DECAY_OF_ADAMW if kwargs.get("rule") == "adamw" else "weight_decay": 0.0})
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.zeros_like(p)
        for _ in range(2):
            optimizer.step()
        self.assertEqual(before, [p.detach() for p in params])

    @optims(INFOS)
    @each_configuration
    def test_print_and_copy(self, kwargs, optimizer, params, make):
        self.assertIn("lr", repr(optimizer))
        train(optimizer, params)
        twin, twins = deepcopy((optimizer, params))
        public = {name for name in vars(optimizer) if not name.startswith("_")}
        self.assertEqual(public, {name for name in vars(twin) if not name.startswith("_")})
        self.assertEqual(train(optimizer, params, range(3, 6)), train(twin, twins, range(3, 6)), atol=0, rtol=0)

    @optims(INFOS)
    @each_configuration
    def test_a_state_goes_on_exactly(self, kwargs, optimizer, params, make):
        """From memory and from a file with weights_only, with and without names."""
        train(optimizer, params)
        state, starts = optimizer.state_dict(), deepcopy(params)
        self.assertGreater(len(state["state"]), 0)
        states = deepcopy(state), through_a_file(state)
        want = train(optimizer, params, range(3, 6))
        for each in states:
            for is_named in (False, True):
                own = deepcopy(starts)
                pairs = [(f"w{number}", p) for number, p in enumerate(own)]
                twin = make([{"params": pairs if is_named else own}])
                twin.load_state_dict(deepcopy(each))
                self.assertEqual(want, train(twin, own, range(3, 6)), atol=0, rtol=0)

    @optims(INFOS)
    def test_an_older_state_loads(self, device, dtype, optim_info):
        """One that lacks the flags that came later."""
        params = drawn(device, dtype)
        optimizer = optim_info.optim_cls(params, **common(optim_info))
        train(optimizer, params)
        state, own = deepcopy(optimizer.state_dict()), deepcopy(params)
        for group in state["param_groups"]:
            for flag in optim_info.not_og_supported_flags:
                group.pop(flag, None)
        twin = optim_info.optim_cls(own, **common(optim_info))
        twin.load_state_dict(state)
        self.assertEqual(train(optimizer, params), train(twin, own), atol=0, rtol=0)

    @optims(INFOS)
    @each_configuration
    def test_a_step_that_is_a_number_loads(self, kwargs, optimizer, params, make):
        train(optimizer, params)
        state, own = deepcopy(optimizer.state_dict()), deepcopy(params)
        for each in state["state"].values():
            if "step" in each:
                each["step"] = each["step"].item()
        twin = make(own)
        twin.load_state_dict(state)
        self.assertEqual(train(optimizer, params), train(twin, own), atol=0, rtol=0)

    @optims(INFOS)
    @each_configuration
    def test_hooks(self, kwargs, optimizer, params, make):
        seen = []
        handles = [
            optimizer.register_step_pre_hook(lambda *_: seen.append("before")),
            optimizer.register_step_post_hook(lambda *_: seen.append("after")),
            register_optimizer_step_post_hook(lambda *_: seen.append("of all")),
            optimizer.register_state_dict_pre_hook(lambda _: seen.append("saving")),
            optimizer.register_state_dict_post_hook(lambda _, state: {**state, "mine": 1}),
            optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(state["mine"])),
            optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded")),
        ]
        train(optimizer, params, range(1))
        optimizer.load_state_dict(optimizer.state_dict())
        for handle in handles:
            handle.remove()
        train(optimizer, params, range(1))
        self.assertEqual(seen, ["before", "after", "of all", "saving", 1, "loaded"])

    @optims(INFOS)
    @each_configuration
    def test_closure(self, kwargs, optimizer, params, make):
        def closure():
            self.assertTrue(torch.is_grad_enabled())
            optimizer.zero_grad()
            loss = sum(p.square().sum() for p in params)
            loss.backward()
            return loss

        want = sum(p.detach().square().sum() for p in params)
        self.assertEqual(optimizer.step(closure).detach(), want)

    @optims(INFOS)
    @each_configuration
    def test_dtypes_mixed_in_a_group(self, kwargs, optimizer, params, make):
        """Parameters of several dtypes in one group are stepped as they are alone."""
        if kwargs.get("fused") or kwargs.get("foreach") or kwargs.get("state_dtype") == "int8":
            return  # the noise of int8 goes by a parameter's number
        params = [drawn("cpu", dtype, (4, 3))[0] for dtype in (torch.float32, torch.float64, torch.bfloat16)]
        alone = deepcopy(params)
        together = train(make(params), params)
        for number, p in enumerate(alone):
            optimizer = make([p])
            for step in range(3):
                give(alone, step)
                optimizer.step()
            spacing = 2 * torch.finfo(p.dtype).eps ** (1 if p.dtype == torch.bfloat16 else 0.5)
            self.assertEqual(together[number], p.detach(), atol=spacing, rtol=spacing)

    @optims(INFOS)
    @each_configuration
    def test_added_groups(self, kwargs, optimizer, params, make):
        more = drawn(params[0].device, params[0].dtype, (5, 2), seed=3)
        lr = torch.tensor(0.125) if isinstance(kwargs.get("lr"), torch.Tensor) else 0.125
        optimizer.add_param_group({"params": more, "lr": lr})
        self.assertEqual(float(optimizer.param_groups[-1]["lr"]), 0.125)
        before = more[0].detach().clone()
        train(optimizer, [*params, *more])
        self.assertNotEqual(before, more[0].detach())
        with self.assertRaisesRegex(ValueError, "more than one parameter group"):
            optimizer.add_param_group({"params": more})
        self.assertEqual(len(optimizer.param_groups), 2)


instantiate_device_type_tests(TestOptimRenewed, globals(), only_for="cpu")


class Result(unittest.TestResult):
    """Prints a line for each test."""

    def __init__(self):
        super().__init__()
        self.found = {}  # name -> what came of it, and the reason or the traceback

    def _add(self, test, outcome, text=""):
        name = getattr(test, "test_case", test).id().split(".", 1)[1]
        if self.found.get(name, ("", ""))[0] != "failed":
            self.found[name] = outcome, text

    def addSuccess(self, test):
        self._add(test, "passed")

    def addSkip(self, test, reason):
        self._add(test, "skipped", reason)

    def addError(self, test, error):
        self._add(test, "failed", self._exc_info_to_string(error, test))

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self._add(test, "failed", f"{subtest}\n{self._exc_info_to_string(error, test)}")


if __name__ == "__main__":
    result = Result()
    loader = unittest.TestLoader()
    loader.loadTestsFromTestCase(globals()["TestOptimRenewedCPU"]).run(result)
    print(json.dumps({"found": result.found, "differences": DIFFERENCES}))
