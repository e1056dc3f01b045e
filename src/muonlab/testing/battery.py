"""All checks in order, run on one optimizer: `check_optimizer`."""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from muonlab.testing import gradients, hyperparameters, progress, robustness, state, symmetry
from muonlab.testing.trial import SHAPES, Factory, MismatchError, NotApplicableError, Trial

Check = Callable[[Trial], None]


def checks_of(*modules: ModuleType) -> dict[str, Check]:
    """Return the checks of modules by name, in order: all public functions that are defined there."""
    functions = (each for module in modules for each in vars(module).values() if _is_check(each, module))
    return {function.__name__: function for function in functions}


def _is_check(value: Any, module: ModuleType) -> bool:
    return callable(value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")


STANDARD = checks_of(progress, gradients, hyperparameters, state)
EXTRA = checks_of(symmetry, robustness)
ALL = STANDARD | EXTRA


@dataclass(frozen=True)
class Report:
    """The names of the checks that passed, in their order, and of those that were not run, each with the reason."""

    passed: tuple[str, ...]
    left_out: dict[str, str]


class CheckError(AssertionError):
    """An optimizer failed some checks; `failures` holds what was seen, by the check's name."""

    def __init__(self, message: str, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures


def expectation(name: str) -> str:
    """Return what a check expects, in a sentence: the first line of its docstring."""
    return (ALL[name].__doc__ or name).strip().splitlines()[0]


def checks() -> dict[str, str]:
    """Return the names of the standard checks in their order, each with what it expects."""
    return {name: expectation(name) for name in STANDARD}


def extra_checks() -> dict[str, str]:
    """Return the names of the checks that run only when asked for, each with what it expects."""
    return {name: expectation(name) for name in EXTRA}


def check_optimizer(
    factory: Factory,
    *,
    dtype: torch.dtype = torch.float32,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    only: Iterable[str] | None = None,
    also: Iterable[str] = (),
    skip: Iterable[str] = (),
    bad_arguments: Iterable[Mapping[str, Any]] = (),
    rtol: float | None = None,
    device: str | torch.device = "cpu",
    group_options: Mapping[str, Any] | None = None,
) -> Report:
    """Check that an optimizer does what PyTorch users expect of one; raise one error that names all that it does not.

    All checks are run, also after one failed. Their gradients are drawn at the scale of one and their parameters start
    near 0.01, so the factory's learning rate should be between about 1e-3 and 1e-1.

    Args:
        factory: called with a list of parameters, of pairs (name, parameter), or of groups (dicts with "params" and
            sometimes "lr" or keys unknown to the optimizer); returns a new torch.optim.Optimizer of them. With
            `bad_arguments` it is called with these keywords as well.
        dtype: of the parameters: float32, bfloat16, float64 or complex64.
        shapes: of the parameters, two at least; matrices by default. `channels_last` and `experts_apart` add their own.
        only: names of the checks to run, standard or extra; all standard ones by default.
        also: names of extra checks to run in addition (see `extra_checks`).
        skip: names of checks not to run.
        bad_arguments: keyword arguments that the constructor must refuse, each alone, such as {"lr": -1.0}. The check
            `bad_arguments` is run when some are given.
        rtol: by how much two updates may differ that should be equal except for rounding, as a share of their norm; the
            square root of the dtype's epsilon by default. An optimizer that computes more coarsely than its
            parameters are needs more: about 1e-3 for float32 and 0.05 for bfloat16.
        device: of the parameters.
        group_options: what a group of parameters needs in addition to "params", such as {"rule": "muon"} for MuonAdamW;
            every group that a check makes has it.

    Returns:
        A Report with the names of the checks that passed and of those left out.

    Raises:
        CheckError: an AssertionError that names every failed check, what it expects and what it saw.
        ValueError: an unknown name of a check, or fewer than two shapes.
        TypeError: the factory does not return a torch.optim.Optimizer.

    Examples:
        >>> import torch
        >>> from muonlab.testing import check_optimizer
        >>> report = check_optimizer(lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9))
        >>> "missing_gradient" in report.passed
        True
        >>> report.left_out["imaginary_part_falls"]
        'torch.float32 has no imaginary part'
    """
    arguments = tuple(bad_arguments)
    skip = frozenset(skip)
    wanted = {*(STANDARD if only is None else only), *also, *(["bad_arguments"] if arguments else [])}
    if unknown := sorted((wanted | skip) - set(ALL)):
        raise ValueError(f"unknown check {', '.join(map(repr, unknown))}; there are {', '.join(ALL)}")
    names = [name for name in ALL if name in wanted - skip]
    if len(shapes) < 2:
        raise ValueError(f"shapes must be two at least, so that parameters can be told apart; got {tuple(shapes)}")
    tolerance = torch.finfo(dtype).eps ** 0.5 if rtol is None else rtol
    trial = Trial(
        factory, dtype, tuple(map(tuple, shapes)), torch.device(device), tolerance, arguments, group_options or {}
    )
    kind = type(trial.build()[0]).__name__
    passed: list[str] = []
    left_out = dict.fromkeys((name for name in ALL if name in skip), "skipped on request")
    errors: dict[str, Exception] = {}
    for name in names:
        try:
            ALL[name](trial)
        except NotApplicableError as reason:
            left_out[name] = str(reason)
        except Exception as error:  # whatever the optimizer raises is a finding
            errors[name] = error
        else:
            passed.append(name)
    if errors:
        raise _failed(f"{kind} ({dtype} on {device})", len(names), errors) from next(iter(errors.values()))
    return Report(tuple(passed), left_out)


def _failed(what: str, count: int, errors: dict[str, Exception]) -> CheckError:
    """Return one error for all that failed: each with what it expects and what was seen."""
    failures = {name: _seen(error) for name, error in errors.items()}
    lines = [f"{what} fails {len(errors)} of {count} checks:"]
    for seen in dict.fromkeys(failures.values()):  # what many saw is said once: a dtype that is refused fails them all
        lines += [f"  {name}: {expectation(name)}" for name in failures if failures[name] == seen]
        lines += [f"    Seen: {seen}"]
    return CheckError("\n".join(lines), failures)


def _seen(error: Exception) -> str:
    """Return what a check saw, or which error it met and where that was raised."""
    if isinstance(error, MismatchError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (raised at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
