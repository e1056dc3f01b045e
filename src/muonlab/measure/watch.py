"""Measures of a model while it trains: its weights, its updates and its hidden states, every so many steps.

Training goes on as if nobody had looked: the measures draw no random numbers from the training's generators, leave the
modes and buffers of all modules as they were, and set hooks only while they run.
"""

import importlib
import json
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from muonlab.measure.features import call, hooked, stream
from muonlab.measure.margins import logit_margins
from muonlab.measure.spectra import EPS, NAMES, Spectrum, ranks, singular_values
from muonlab.measure.taps import choose, pools, tap_shapes

OF_WEIGHTS = ("weight_norm", "spectral_norm", "weight_rank", "weight_stable_rank", "update_to_weight")
OF_STATES = ("hidden_rank", "hidden_stable_rank")
OF_ANSWERS = ("accuracy", "margin")
MEASURES = (*OF_WEIGHTS, *OF_STATES, *OF_ANSWERS)

Row = dict[str, Any]  # the step, and a float or None by measure and name


class Watch:
    """Takes measures of a model every so many steps of a training, and does not change the training.

    The losses and weights are those of a training without it, to the last bit. A row has the step and, by the keys
    `MEASURE/NAME`, what was measured; None where a value is not finite:

    | measure | of | what |
    |---|---|---|
    | weight_norm | matrix W of weights | Frobenius norm |
    | spectral_norm | W | the largest singular value |
    | weight_rank, weight_stable_rank | W | effective rank (`spectra.Ranks`), stable rank |
    | update_to_weight | W | norm of the step's change of W, divided by the norm of W before it |
    | hidden_rank, hidden_stable_rank | tap | the same ranks, of the hidden states of the inputs less their mean |
    | accuracy, margin | answers | share of right answers; median of z_y - max z_j of the logits z |

    A weight of more than two axes is a matrix of its first axis by all others. A watched step needs a copy of the
    watched weights, an eigenvalue problem of the shorter side of each, and one pass over the inputs.

    Args:
        model: any module; of a compiled one or of DistributedDataParallel, what is within is measured.
        every: steps between two rows.
        inputs: a batch that hidden states are measured on: a tensor, a tuple (`model(*inputs)`) or a mapping
            (`model(**inputs)`). Give several times as many examples as the states are wide: a rank is at most their
            number. None leaves out the measures of states and answers.
        labels: right answers (B,), or (B, T) for logits (B, T, C); negative ones are left out. None leaves out the
            measures of answers.
        measures: some of the above; None takes all that the inputs and labels allow.
        weights: patterns (fnmatch) of the names of parameters; of those that match, matrices are measured.
        taps: patterns of the names of modules whose outputs are the hidden states; () takes the blocks of the model.
        pool: how an output becomes one vector per example (`features.POOLS`); None goes by its axes. Of a mapping with
            an attention_mask, padding is left out.
        forward: calls the model with the inputs, where the above does not fit: `lambda model, inputs: ...`.
        path: a file of JSON lines that rows are added to. Rows of steps that come again, as after resuming, are
            replaced.

    Attributes:
        rows: what was measured, in order.

    Raises:
        ValueError: settings, inputs or labels that do not fit the model; a path of another kind of file.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> watch = Watch(model, every=10, inputs=torch.randn(64, 4))
        >>> for step in range(1, 21):
        ...     model(torch.randn(8, 4)).square().mean().backward()
        ...     with watch(step):
        ...         optimizer.step()
        ...     optimizer.zero_grad()
        >>> [row["step"] for row in watch.rows]
        [10, 20]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        inputs: Any = None,
        labels: Tensor | None = None,
        measures: Sequence[str] | None = None,
        weights: Sequence[str] = ("*",),
        taps: Sequence[str] = (),
        pool: str | None = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        path: str | Path | None = None,
    ):
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every={every!r}: expected a whole number of steps, 1 or more")
        self.rows: list[Row] = []
        self._model, self._every, self._inputs, self._labels = model, every, inputs, labels
        self._measures = _chosen(measures, inputs, labels)
        self._forward = forward or call
        self._names = _matching(_inner(model), weights) if set(self._measures) & {*OF_WEIGHTS} else ()
        self._pools = self._tried(taps, pool)
        self._before: tuple[int, dict[str, Tensor]] | None = None  # the step, and weights before it
        self._path = None if path is None else Path(path)
        if self._path is not None:
            _earlier(self._path, math.inf)  # another kind of file is refused before anything is trained

    @contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        """Watch the step that is taken within: `with watch(step): optimizer.step()`."""
        self.before(step)
        yield
        self.after(step)

    def before(self, step: int) -> None:
        """Note the weights before a step, if it is one that is watched. A second call for one step is none."""
        if self._before is not None and self._before[0] == step:
            return
        self._before = None  # that of a step which an exception ended
        if step % self._every or not _is_first():
            return
        parameters = dict(_inner(self._model).named_parameters())
        if sharded := next((name for name, weight in parameters.items() if hasattr(weight, "full_tensor")), None):
            raise ValueError(f"{sharded} is sharded over processes: Watch needs a model that is whole in each process")
        wanted = self._names if "update_to_weight" in self._measures else ()
        self._before = step, {name: parameters[name].detach().clone() for name in wanted}

    def after(self, step: int) -> None:
        """Measure after a step whose weights before it were noted."""
        if self._before is None or step < self._before[0]:
            return
        (step, before), self._before = self._before, None
        model = _inner(self._model)
        try:
            with _undisturbed(model):
                row: Row = {"step": step, **self._of_weights(model, before), **self._of_states(model)}
            self._add(row)
        except Exception as error:  # the measures of a step are not worth a training
            warnings.warn(f"step {step} has no row: {type(error).__name__}: {error}", stacklevel=2)

    # -- adapters ------------------------------------------------------------------------------------

    def for_lightning(self) -> Any:
        """Return a Callback for Lightning's Trainer: `Trainer(callbacks=[watch.for_lightning()])`.

        Raises:
            ImportError: Lightning is not installed.
        """
        return _lightning(self)

    def for_trainer(self) -> Any:
        """Return a TrainerCallback for the Trainer of transformers: `Trainer(..., callbacks=[watch.for_trainer()])`.

        Raises:
            ImportError: transformers is not installed.
        """
        return _trainer(self)

    # -- the measures --------------------------------------------------------------------------------

    def _of_weights(self, model: nn.Module, before: Mapping[str, Tensor]) -> Row:
        parameters, found = dict(model.named_parameters()), {}
        for name in self._names:
            weight = parameters[name].detach()
            values = _of_matrix(weight, self._measures)
            if name in before:
                norm = float(before[name].double().norm())
                values["update_to_weight"] = float((weight.double() - before[name]).norm()) / norm if norm else math.nan
            found |= {f"{measure}/{name}": _finite(values[measure]) for measure in OF_WEIGHTS if measure in values}
        return found

    def _of_states(self, model: nn.Module) -> Row:
        if not self._pools and not set(self._measures) & {*OF_ANSWERS}:
            return {}
        spectra, answers = {name: Spectrum() for name in self._pools}, []
        is_finite = dict.fromkeys(spectra, True)

        def consumer(name: str) -> Callable[[Tensor], None]:
            def consume(states: Tensor) -> None:
                is_finite[name] = bool(states.isfinite().all())
                if is_finite[name]:
                    spectra[name].update(states.cpu())

            return consume

        def forward(model: nn.Module, batch: Any) -> None:
            answers.append(self._forward(model, batch))

        batch = _moved(self._inputs, _device(model))
        is_padded = isinstance(batch, Mapping) and batch.get("attention_mask") is not None
        mask = (lambda batch: batch["attention_mask"].bool()) if is_padded else None
        stream(model, [batch], {name: consumer(name) for name in spectra}, pool=self._pools, forward=forward, mask=mask)
        found: Row = {}
        for name, spectrum in spectra.items():
            own = spectrum.result().centred.ranks if is_finite[name] else None
            values = {
                "hidden_rank": own and own.effective_rank,
                "hidden_stable_rank": own and own.stable_rank,
            }
            found |= {f"{measure}/{name}": value for measure, value in values.items() if measure in self._measures}
        return found | self._of_answers(answers[0])

    def _of_answers(self, output: Any) -> Row:
        wanted = [measure for measure in OF_ANSWERS if measure in self._measures]
        if not wanted or self._labels is None:
            return {}
        logits, labels = _logits(output).flatten(0, -2).cpu(), self._labels.flatten().cpu()
        logits, labels = logits[labels >= 0], labels[labels >= 0]
        if not logits.isfinite().all():
            return dict.fromkeys(wanted)
        margin = logit_margins(logits[None], labels)[0]
        values = {"accuracy": float((margin > 0).double().mean()), "margin": float(margin.median())}
        return {measure: values[measure] for measure in wanted}

    # -- what is decided before training ---------------------------------------------------------------

    def _tried(self, patterns: Sequence[str], pool: str | None) -> dict[str, str]:
        """Return the pool of each tap, after one call with the inputs: what does not fit shows before training."""
        if self._inputs is None:
            return {}
        model, output = _inner(self._model), []
        with _undisturbed(model), hooked(model, {}):
            batch = _moved(self._inputs, _device(model))
            # The shapes of taps, of the same call as that of which the answers are looked at.
            shapes = tap_shapes(model, batch, lambda net, batch: output.append(self._forward(net, batch)))
        if set(self._measures) & {*OF_ANSWERS}:
            _check_labels(_logits(output[0]), self._labels)
        if not set(self._measures) & {*OF_STATES}:
            return {}
        taps = choose(model, patterns)
        known = dict(shapes)
        number = next((known[name][0] for name in taps if known.get(name)), 0)
        return pools(shapes, taps, pool, num_examples=number)

    # -- the file --------------------------------------------------------------------------------------

    def _add(self, row: Row) -> None:
        """Add a row, in place of those from its step on."""
        earlier = [each for each in self.rows if each["step"] < row["step"]]
        is_begun = bool(self.rows) and len(earlier) == len(self.rows)
        self.rows[:] = [*earlier, row]
        if self._path is None:
            return
        if not is_begun:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("".join(map(_line, _earlier(self._path, row["step"]))), encoding="utf-8")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _earlier(path: Path, step: float) -> list[dict[str, Any]]:
    """Return the rows of a file before a step; a last line that was cut off is none.

    Raises:
        ValueError: a file of something else.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if row["step"] < step]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"path={str(path)!r}: expected a new file, or JSON lines with a step each, to add to; give another path"
        ) from error


# -- settings --------------------------------------------------------------------------------------


def _chosen(measures: Sequence[str] | None, inputs: Any, labels: Tensor | None) -> tuple[str, ...]:
    lacking = {
        **dict.fromkeys(OF_STATES, inputs is None),
        **dict.fromkeys(OF_ANSWERS, inputs is None or labels is None),
    }
    if measures is None:
        return tuple(measure for measure in MEASURES if not lacking.get(measure))
    for measure in [measures] if isinstance(measures, str) else measures:
        if measure not in MEASURES:
            raise ValueError(f"measures has {measure!r}; expected some of {', '.join(MEASURES)}")
        if lacking.get(measure):
            raise ValueError(
                f"{measure} needs {'inputs=' if measure in OF_STATES else 'inputs= and labels='}; give them"
            )
    return (measures,) if isinstance(measures, str) else tuple(measures)


def _matching(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the matrices that patterns name.

    Raises:
        ValueError: a pattern that matches none.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    names = [name for name, weight in model.named_parameters() if weight.ndim > 1 and min(_matrix(weight).shape) > 1]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"weights={pattern!r} matches no matrix of the model; there are: {', '.join(names[:20])}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def _check_labels(logits: Tensor, labels: Tensor | None) -> None:
    shape = None if labels is None else tuple(labels.shape)
    if shape != tuple(logits.shape[:-1]):
        raise ValueError(f"labels {shape} for logits {tuple(logits.shape)}: expected one label for each row of logits")
    if labels is not None and (labels.dtype != torch.int64 or int(labels.max()) >= logits.shape[-1]):
        raise ValueError(f"labels are {labels.dtype} up to {labels.max()}: expected int64 below {logits.shape[-1]}")
    if labels is not None and int(labels.max()) < 0:
        raise ValueError(f"labels are {labels.max()} at most, so every one is left out: expected some of 0 or more")


# -- the model, left as it was ---------------------------------------------------------------------


def _inner(model: nn.Module) -> nn.Module:
    """Return the module within wrappers, whose names are the user's and whose hooks are heard."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(own := getattr(model, "_orig_mod", None), nn.Module):  # of torch.compile
            model = own
        else:
            return model


def _is_first() -> bool:
    """Return whether this process is the only one, or the one that writes."""
    return not (torch.distributed.is_available() and torch.distributed.is_initialized()) or (
        torch.distributed.get_rank() == 0
    )


def _device(model: nn.Module) -> torch.device:
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    return tuple(_moved(value, device) for value in batch) if isinstance(batch, tuple | list) else batch


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Restore generators and buffers afterwards, whatever happened; leave gradients and autocast's cache alone."""
    device = _device(model)
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    numpy = sys.modules.get("numpy")
    python, arrays = random.getstate(), None if numpy is None else numpy.random.get_state()
    cached = torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,  # a weight that was cast without gradient would be used in training
    )
    try:
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad(), cached:
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(arrays)
        for buffer, before in kept:
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)


def _logits(output: Any) -> Tensor:
    """Return the logits of what a model returned: `output.logits`, or the first tensor."""
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) else output)
    if not isinstance(found, Tensor) or found.ndim < 2:
        raise ValueError(f"the model returned a {type(output).__name__} without logits (B, ..., C); leave labels= out")
    return found.detach()


# -- a matrix --------------------------------------------------------------------------------------


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def _of_matrix(weight: Tensor, measures: Sequence[str]) -> dict[str, float]:
    """Return the measures of one matrix that are asked for, and more; NaN where it is not finite."""
    wide = _matrix(weight).double()
    found = {"weight_norm": float(wide.norm())}
    if not {"spectral_norm", "weight_rank", "weight_stable_rank"} & {*measures}:
        return {key: value for key, value in found.items() if key in measures}
    names = ("spectral_norm", "weight_rank", "weight_stable_rank")
    if not math.isfinite(found["weight_norm"]):
        return found | dict.fromkeys(names, math.nan)
    gram = wide @ wide.mT if wide.shape[0] <= wide.shape[1] else wide.mT @ wide
    values = singular_values(gram)  # (D,)
    own = dict(zip(NAMES, ranks(values[None], math.sqrt(len(values) * EPS))[0].tolist(), strict=True))
    found |= dict(zip(names, (float(values[0]), own["effective_rank"], own["stable_rank"]), strict=True))
    return {key: value for key, value in found.items() if key in measures}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- frameworks ------------------------------------------------------------------------------------


def _lightning(watch: Watch) -> Any:
    """Return a Callback of the Lightning that is in use: it has two names, whose classes are not interchangeable."""
    names = ("lightning.pytorch", "pytorch_lightning")
    package = _imported(next((name for name in names if name in sys.modules), names[0]), "lightning")

    class WatchCallback(package.Callback):
        """Watches the steps that are taken within a batch."""

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            watch.before(_steps(trainer) + 1)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            watch.after(_steps(trainer))  # a batch whose gradient is accumulated ends without a step

    return WatchCallback()


def _steps(trainer: Any) -> int:
    """Return the steps that are done; with several optimizers, Lightning counts those of each."""
    return trainer.global_step // max(1, len(trainer.optimizers))


def _trainer(watch: Watch) -> Any:
    package = _imported("transformers", "transformers")

    class WatchCallback(package.TrainerCallback):
        """Watches the steps of the optimizer; global_step counts those that are done."""

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.before(state.global_step + 1)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.after(state.global_step + 1)

    return WatchCallback()


def _imported(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this callback needs the package {package} ({error}); install it with: pip install {package}"
        ) from error
