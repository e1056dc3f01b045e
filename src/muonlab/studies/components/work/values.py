"""The measures of trained members, many at once. Letters: M models, N examples, K classes, D width, r components."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from muonlab.measure.margins import logit_margins
from muonlab.measure.spectra import ranks, singular_values
from muonlab.studies.components.work.material import Material

Parameters = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Values = dict[str, Any]  # measure -> number, list of numbers, or None
Key = tuple[int, int]  # a member and an evaluation

MODELS = 64  # that are measured at once
FORMS = ("", "_sigma")  # of effective ranks: the first two columns of `muonlab.measure.spectra.ranks`
ANSWERED = ("test", "means", "marked", "validation", "removed", "swapped")  # inputs
ACCURACIES = (  # name, inputs, and whose labels are right
    ("validation_accuracy", "validation", "validation"),
    ("test_accuracy", "test", "test"),
    ("accuracy_removed", "removed", "test"),
    ("accuracy_swapped", "swapped", "test"),
)
# Measures that a linear classifier at zero does not have, as they do not change when W is multiplied by a number.
OF_DIRECTION = ("margin_worst_by_norm", *(f"rank_{what}{form}" for what in ("weights", "logits") for form in FORMS))


class Forward:
    """The answers of many models at once: copies of a net, whose own parameters are not read."""

    def __init__(self, net: nn.Module):
        self._net = net.eval()
        self._kept: dict[str, Tensor] = {}
        self.has_hidden = bool(getattr(net, "taps", ()))
        if self.has_hidden:
            net.get_submodule(net.taps[-1]).register_forward_hook(self._keep)  # pyright: ignore
        self._stacked = vmap(self._one)

    @torch.no_grad()
    def __call__(self, parameters: Parameters, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (M, N, K) in float64 and last hidden states (M, N, D), of width zero where there are none.

        Args:
            parameters: name -> (M, ...).
            inputs: (M, N, d).
        """
        logits, hidden = self._stacked(dict(parameters), inputs)
        return logits.double(), hidden

    def _one(self, parameters: dict[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(self._net, parameters, (inputs,))
        return logits, self._kept.pop("hidden", logits[:, :0])

    def _keep(self, module: nn.Module, arguments: object, output: Tensor) -> None:
        self._kept["hidden"] = output


def losses(forward: Forward, loss: Loss, parameters: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return each model's mean loss on its own examples, (M,) in float64; arguments as of `Forward`, labels (M, N)."""
    return vmap(loss)(forward(parameters, inputs)[0], labels).mean(1)


@torch.no_grad()
def measure(
    forward: Forward, loss: Loss, parameters: Parameters, seen: Material, num_spurious: int
) -> dict[str, Tensor]:
    """Return the measures of M models, (M,) each, (M, r) for component margins, in float64; NaN where there is none.

    Margins are z_y - max_{j != y} z_j. Component k's is v_k' Z v_k with Z (K, K) the logits at the class means as they
    would be if no component were spurious; the worst is that among components that are not. Effective ranks are those
    of `muonlab.measure.spectra.Ranks`, with squared singular values and ("_sigma") with singular values: of the weight
    matrices, their mean; of the logits at class means, minus their mean over the K logits, which no softmax sees; of
    the last hidden states at the test inputs, as they are. `margin_worst_by_norm` is over the product of the spectral
    norms of the matrices, `weight_norm` the Frobenius norm of all of them together; biases are in neither.

    Args:
        forward: of the net.
        loss: logits (N, K), labels (N,) -> (N,).
        parameters: name -> (M, ...).
        seen: what each model sees, its own seed's.
        num_spurious: of the components, the last ones.
    """
    matrices = [p.double() for p in parameters.values() if p.ndim == 3]
    answers = {side: forward(parameters, seen[side]) for side in ANSWERED}
    logits, hidden = {side: answer for side, (answer, _) in answers.items()}, answers["test"][1]
    finite = torch.stack([matrix.flatten(1).isfinite().all(1) for matrix in matrices]).all(0)
    for found in (logits["test"], hidden, logits["means"]):
        finite &= found.flatten(1).isfinite().all(1)

    def cleaned(found: Tensor) -> Tensor:  # zeros for what is not finite, which LAPACK does not take
        return torch.where(finite.view(-1, *[1] * (found.ndim - 1)), found, 0.0)

    spectra = [torch.linalg.svdvals(cleaned(matrix)) for matrix in matrices]
    norm = torch.stack([spectrum[:, 0] for spectrum in spectra]).prod(0)
    values = _margins(logits, seen, num_spurious)
    values["margin_worst_by_norm"] = values["margin_worst"] / norm
    for name, side, labelled in ACCURACIES:
        values[name] = (logits[side].argmax(-1) == seen[f"{labelled}_labels"]).double().mean(1)
    values["test_loss"] = vmap(loss)(logits["test"], seen["test_labels"]).mean(1)
    centred = logits["means"] - logits["means"].mean(-1, keepdim=True)
    found = {
        "rank_weights": torch.stack([ranks(spectrum, 0.0) for spectrum in spectra]).mean(0),
        "rank_logits": ranks(torch.linalg.svdvals(cleaned(centred)), 0.0),
        "rank_hidden": torch.full((len(norm), len(FORMS)), torch.nan),
    }
    if forward.has_hidden:
        states = cleaned(hidden.double())
        found["rank_hidden"] = ranks(singular_values(states.mT @ states), 0.0)
    values |= {f"{name}{form}": counts[:, k] for name, counts in found.items() for k, form in enumerate(FORMS)}
    values["weight_norm"] = torch.stack([spectrum.square().sum(1) for spectrum in spectra]).sum(0).sqrt()
    lost, still = ~finite, values["weight_norm"] == 0
    for name, value in values.items():
        none = lost | still if name in OF_DIRECTION else lost
        values[name] = value.double().masked_fill(none.view(-1, *[1] * (value.ndim - 1)), torch.nan)
    return values


def _margins(logits: dict[str, Tensor], seen: Material, num_spurious: int) -> dict[str, Tensor]:
    at_means = logits["means"]  # (M, K, K)
    of_classes = logit_margins(at_means, torch.arange(at_means.shape[1], device=at_means.device))  # (M, K)
    components = torch.einsum("mkr,mkj,mjr->mr", seen["patterns"], logits["marked"], seen["patterns"])
    telling = components[:, : components.shape[1] - num_spurious]
    return {
        "margin_worst": of_classes.amin(1),
        "margin_mean": of_classes.mean(1),
        "margin_test_median": logit_margins(logits["test"], seen["test_labels"]).quantile(0.5, dim=1),
        "component_margins": components,
        "component_margin_worst": telling.amin(1) if telling.shape[1] else torch.full_like(of_classes[:, 0], torch.nan),
    }


class Measured:
    """The measures of members at some evaluations: parameters wait until there are enough to be measured together.

    Args:
        read: parameters name -> (M, ...) and positions of seeds (M,) -> measures, a tensor (M, ...) each.
        places: position of each member's seed.
    """

    def __init__(self, read: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]], places: Sequence[int]):
        self._read, self._places = read, places
        self._waiting: dict[Key, dict[str, Tensor]] = {}
        self._values: dict[Key, Values] = {}

    def add(self, member: int, number: int, parameters: dict[str, Tensor], row: int) -> None:
        """Measure a member, whose parameters are in a row of stacks, sooner or later."""
        if (member, number) not in self._values:
            self._waiting[member, number] = {name: p[row].clone() for name, p in parameters.items()}
        if len(self._waiting) >= MODELS:
            self._flush()

    def __getitem__(self, key: Key) -> Values:
        """Return the measures of a member at an evaluation that was asked for."""
        if key in self._waiting:
            self._flush()
        return dict(self._values[key])

    def _flush(self) -> None:
        models = list(self._waiting.values())
        stacks = {name: torch.stack([model[name] for model in models]) for name in models[0]}
        found = self._read(stacks, torch.tensor([self._places[member] for member, _ in self._waiting]))
        columns = {name: tensor.tolist() for name, tensor in found.items()}
        for row, key in enumerate(self._waiting):
            self._values[key] = {name: plain(column[row]) for name, column in columns.items()}
        self._waiting.clear()


def plain(value: Any) -> Any:
    """Return a number or a list of numbers as JSON has it: None in the place of what is not finite."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if math.isfinite(value) else None
