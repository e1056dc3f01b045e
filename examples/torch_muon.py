"""torch.optim.Muon for `muonlab compare`: it takes matrices alone, so AdamW has all else.

muonlab compare examples/compare_digits.py:task optimizers=adamw,torchmuon=examples/torch_muon.py:torch_muon \
    torchmuon.adamw_factor=0.1..10
"""

import torch

# Modules whose matrices are tables or output heads in the nets of muonlab: Muon is not for them (Jordan et al. 2024).
OTHERS = ("head", "embedding", "position_embedding")


def torch_muon(named_parameters, lr=1e-3, adamw_factor=1.0, momentum=0.95, weight_decay=0.1):
    """Return Muon of the hidden matrices and AdamW of all else, convolutions included.

    A first argument called named_parameters is given pairs of name and parameter. A list of optimizers shares the
    parameters out. adamw_factor is AdamW's learning rate divided by Muon's.
    """
    hidden, others = [], []
    for name, p in named_parameters:
        is_hidden = p.ndim == 2 and not set(name.split(".")) & set(OTHERS)
        (hidden if is_hidden else others).append(p)
    made = [torch.optim.AdamW(others, lr=lr * adamw_factor, weight_decay=weight_decay)] if others else []
    if hidden:
        how = {"momentum": momentum, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        made.append(torch.optim.Muon(hidden, lr=lr, **how))
    return made
