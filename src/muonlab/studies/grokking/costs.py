"""About how long a cell takes if every run uses its whole budget, and whether it fits into memory: before it has run.

The times are fitted to the 56 cells of records/laptop (one core, float32): a step has a cost of its own, however many
runs are stacked, and each run adds its matrix products. They are for orders of magnitude and for shares of the whole;
what is left of a running study follows from its clock.
"""

import os
from typing import Any

from muonlab.studies.grokking.config import CellConfig, MLPConfig, OwnNet

STEP_SECONDS = 3.2e-3  # of a step, whatever is stacked
PRODUCTS_A_SECOND = 1.4e11  # multiplications and additions
MUON = 1.5  # times the products of AdamW
POSITIONS = 4  # a op b =; of longer inputs the net computes what the answer needs
PARAMETERS_OF_OWN = 100_000  # of a net that is known once it is built
TRAINING_COPIES = 5  # of the parameters: they, two moments, and the new parameters and gradients of a step


def seconds(cell: CellConfig) -> float:
    """Return about the seconds of one core that a cell takes."""
    task, protocol = cell.task, cell.protocol
    num_rows = task.modulus**2 if task.name != "parity" else 2**task.bits
    batch = num_rows * task.train_share if protocol.batch == "full" else protocol.batch
    # Forward and backward of a batch in each step, and a third of that for all rows at each evaluation.
    rows = batch + num_rows / (3 * protocol.cadence)
    products = 6 * _num_parameters(cell) * POSITIONS * rows * (MUON if cell.optimizer.name == "muon" else 1.0)
    return protocol.budget * (STEP_SECONDS + len(cell.seeds) * products / PRODUCTS_A_SECOND)


def check_memory(*, config: dict[str, Any]) -> None:
    """Raise ValueError where parameters, states and gradients alone would not fit: asking the system can be fatal."""
    cell = CellConfig.model_validate(config)
    itemsize = 8 if cell.protocol.dtype == "float64" else 4
    needed = _num_parameters(cell) * itemsize * len(cell.seeds) * TRAINING_COPIES
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ValueError(
            f"a cell of this size needs {needed / 1e9:.0f} GB and this machine has {present / 1e9:.0f} GB; a smaller "
            "net, batch or modulus may fit"
        )


def needed_share(cell: CellConfig) -> float:
    """Return the share of the products of a net at all positions that the answer, read at the last one, depends on.

    Of the last block, keys and values are needed at every position, all else at the last one. A net that is no
    Transformer needs all of them.
    """
    net, task = cell.net, cell.task
    if isinstance(net, MLPConfig | OwnNet) or task.call is not None:
        return 1.0
    length = task.bits + 1 if task.name == "parity" else 3 + task.operator_token
    keys, rest = 2 * net.width**2, 2 * net.width**2 + 2 * length * net.width
    rest += (3 if net.gated else 2) * net.width * net.ff_width
    head = net.width * (2 if task.name == "parity" else task.modulus)  # at the last position in any case
    everything = net.depth * length * (keys + rest) + head
    return ((net.depth - 1) * length * (keys + rest) + length * keys + rest + head) / everything


def _num_parameters(cell: CellConfig) -> int:
    """Return the parameters of one run, those of norms aside."""
    net, num_tokens = cell.net, POSITIONS
    vocabulary = cell.task.modulus if cell.task.name != "parity" else 2
    if isinstance(net, OwnNet):
        return PARAMETERS_OF_OWN
    if isinstance(net, MLPConfig):
        return (num_tokens + 1) * vocabulary * net.width + (net.depth - 1) * net.width**2
    block = 4 * net.width**2 + (3 if net.gated else 2) * net.width * net.ff_width
    return net.depth * block + 2 * vocabulary * net.width
