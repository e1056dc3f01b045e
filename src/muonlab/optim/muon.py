"""Muon as a torch.optim.Optimizer: for the hidden matrices of a network, of any shape, dtype and sharding."""

from typing import Any

import torch
from torch import Tensor, nn

from muonlab.optim import arguments, muon_step
from muonlab.optim.layout import Splits, Splitter
from muonlab.optim.shell import Item, Shell
from muonlab.rules.muon import AdjustLR
from muonlab.rules.operands import Workspace
from muonlab.rules.wrapped import AHEAD


class Muon(Shell):
    """Muon: momentum, orthogonalized; for hidden matrices. `MuonAdamW` takes whole models.

        b = momentum * b + (1 - momentum) * g
        O = polar factor of (momentum * b + (1 - momentum) * g  if nesterov else  b)
        p = (1 - lr * weight_decay) * p - lr * adjustment * O

    A 2-D parameter is a matrix, a 3-D one a stack of matrices (experts), and one of more axes a convolution
    (out, in, *kernel), which is the matrix (out, in * kernel). Experts, the parts of a split, and different
    parameters are orthogonalized apart, as one batch where their shapes are equal or each other's transpose.

    Args:
        params: tensors, (name, tensor) pairs, or groups of them. Fewer than two axes is an error.
        lr: step size, a number or a tensor of one.
        weight_decay: decoupled decay; a step shrinks p by lr * weight_decay. A number or a tensor of one.
        momentum: share of the old momentum that is kept, in [0, 1).
        nesterov: look ahead by one momentum step.
        ns_coefficients: (a, b, c) of the quintic iteration; giving them means method="quintic".
        eps: keeps zero gradients zero in the quintic iteration; relative to the largest entry.
        ns_steps: iterations; giving them alone means method="quintic", as in torch.optim.Muon.
        adjust_lr_fn: what lr is multiplied by, for a matrix of (rows, columns): "original", sqrt(max(1, rows /
            columns)), the default; "match_rms_adamw", 0.2 sqrt(max(rows, columns)), with which AdamW's learning rate
            and decay can be kept; "spectral", sqrt(rows / columns), which transfers across width; "none"; or a
            function of (rows, columns).
        method: of polar factors (`muonlab.rules.polar.orthogonalize`): "auto", "quintic", "polar_express",
            "cubic", "gram", "aol" or "exact".
        ns_dtype: dtype of the matrix products. By default float32 on a CPU (float64 for float64 parameters), and
            bfloat16 on other devices.
        cautious: decay only the entries that the step moves towards zero (arXiv 2510.12402).
        nonfinite: what a gradient with an infinity or NaN does: "raise" an error before anything is changed, or "skip"
            its parameter, momentum included, and count it in `num_skipped`.
        variant: None; "normuon", which divides each row of O by the root of its running mean square (arXiv
            2510.05491); or "adamuon", which takes O of the signs of the momentum and divides each entry by its own
            (arXiv 2507.11005). Both keep O's Frobenius norm; their papers use adjust_lr_fn="match_rms_adamw".
        beta2: decay of the second moment of a variant, in [0, 1).
        equilibrate: "row", "col" or "rowcol": divide these by their norms before orthogonalization (MuonEq, arXiv
            2603.28254).
        renormalize: "row", "col", "col_row" or "row_col": divide these by their norms after it (Muon+, arXiv
            2602.21545).
        update_floor: least norm of a step, over lr, as a share of the matrix's; 0 is none.
        hyperball: hold the norm of each matrix; lr is then the length of a step as a share of it, and there is
            neither decay nor adjustment (MuonH, arXiv 2606.16899).
        decay: how weight_decay acts: "decoupled"; "independent", a step shrinks p by weight_decay, whatever lr, but
            a scheduler multiplies it as it does lr; or "l2", it is added to the gradient.
        lookahead: take gradients so many mean changes ahead of the parameters, which then hold that point; a
            scheduler multiplies it as it does lr (EMA-Nesterov, arXiv 2605.25395). 0 is none. Costs a tensor like p.
        lookahead_decay: of that mean, in [0, 1).
        split: rows that are orthogonalized apart, as query, key and value of one fused matrix or heads are: pattern
            (`muonlab.optim.patterns.matches`) -> number of equal blocks, the rows of each, or (times, rows of each
            part) where parts alternate; or a function of name and parameter that returns these or None. A letter
            for each axis says which are rows, columns and a stack of matrices, as "scr" for experts as (E, in, out),
            alone or as ("scr", 2). Needs named parameters.
        rounding: how bfloat16 parameters keep small updates: "stochastic" rounding, with noise of its own; a
            "remainder" of 16 bits for each entry; or "nearest", which loses them.
        state_dtype: dtype of the momentum; by default the parameter's, float32 for bfloat16 and float16 parameters.
            "int8" keeps it in eight bits, with a scale for each block of 256 entries (arXiv 2110.02861).
        process_group: ranks over which plain parameters are replicated (DDP): each rank then orthogonalizes its
            share. Sharded parameters (DTensor, FSDP2) need none.
        capturable: never look at a value from the host, so that the step can be captured in a CUDA graph; give lr and
            weight_decay as tensors to change them between replays. Needs nonfinite="skip".

    Raises:
        ValueError: an argument out of range, a parameter that is no matrix, a split that does not fit.

    Examples:
        >>> linear = torch.nn.Linear(4, 4, bias=False)
        >>> optimizer = Muon(linear.parameters(), lr=0.02, weight_decay=0.01)
        >>> linear(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()

    References:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; torch.optim.Muon, whose arguments these are and
        whose state_dict loads.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        weight_decay: float | Tensor = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] | None = None,
        eps: float = 1e-7,
        ns_steps: int | None = None,
        adjust_lr_fn: AdjustLR | None = None,
        *,
        method: str = "auto",
        ns_dtype: torch.dtype | None = None,
        cautious: bool = False,
        nonfinite: str = "raise",
        variant: str | None = None,
        beta2: float = 0.95,
        equilibrate: str | None = None,
        renormalize: str | None = None,
        update_floor: float = 0.0,
        hyperball: bool = False,
        decay: str = "decoupled",
        lookahead: float = 0.0,
        lookahead_decay: float = AHEAD,
        split: Splits | None = None,
        rounding: str = "stochastic",
        state_dtype: torch.dtype | str | None = None,
        process_group: Any = None,
        capturable: bool = False,
    ):
        if isinstance(params, nn.Module):
            raise ValueError(
                "params is a model, of which Muon is to have a part; expected parameters, or MuonAdamW(model)"
            )
        given = arguments.plain({name: value for name, value in locals().items() if name in arguments.NAMES})
        arguments.check({"rule": "muon", **given})
        self.process_group = process_group
        self._splits = Splitter(split)
        super().__init__(params, {"rule": "muon", **given})
        self._splits.check_all_claimed()

    def _complete(self, group: dict[str, Any]) -> dict[str, Any]:
        if group.get("rule", "muon") != "muon":
            raise ValueError(f"rule={group['rule']!r} in a group of Muon; expected 'muon': MuonAdamW has both")
        return group

    def _widens_in_parts(self, group: dict[str, Any], item: Item) -> bool:
        return muon_step.in_parts(group, item, self.process_group)

    def _update(self, group: dict[str, Any], items: list[Item], workspace: Workspace) -> None:
        muon_step.update(group, items, self.process_group, workspace)
