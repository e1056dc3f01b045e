"""About how long a job takes, before anything has run: products of matrices at a rate, and a time a step.

These are for orders of magnitude and for shares of the whole; what is left of a running study follows from its clock.
"""

from muonlab.studies.features.config import CNNConfig, Family, GPTConfig, ImageData, Measure, Training, ViTConfig

PRODUCTS_A_SECOND = 16e9  # multiplications and additions of one core, small nets, forward and backward
STEP_SECONDS = 5e-4  # of one member's step, whatever its size
CORRUPTIONS = {"images": 15, "text": 10}
UNKNOWN_SIDE = 32  # of images whose size is that of their files


def products(family: Family) -> float:
    """Return the multiplications of matrix products in the forward pass of one example."""
    net, data = family.net, family.data
    if isinstance(data, ImageData):
        side = data.side or UNKNOWN_SIDE
        if isinstance(net, CNNConfig):
            return _cnn(net, side)
        assert isinstance(net, ViTConfig)
        tokens = (side // net.patch) ** 2
        return tokens * net.depth * (12 * net.width**2 + 2 * tokens * net.width)
    assert isinstance(net, GPTConfig)
    share = 16 if net.feed_forward == "swiglu" else 12
    vocabulary = 257 if data.tokenizer == "bytes" else 50_000
    return data.length * (net.depth * (share * net.width**2 + 2 * data.length * net.width) + vocabulary * net.width)


def _cnn(net: CNNConfig, side: int) -> float:
    total, inputs = 0.0, net.width
    for stage, depth in enumerate(net.depths):
        outputs = net.width * 2**stage
        side = side if not stage else (side + 1) // 2
        total += side**2 * 9 * (inputs * outputs + (2 * depth - 1) * outputs**2)
        inputs = outputs
    return total


def training_cost(family: Family, training: Training, members: int) -> float:
    """Return about the seconds of one core that training takes; a backward pass is two forward ones."""
    steps = training.budget * members
    return steps * (STEP_SECONDS + 6 * products(family) * training.batch / PRODUCTS_A_SECOND)


def measuring_cost(family: Family, job: Measure) -> float:
    """Return about the seconds of one core that the measures take."""
    kinds = CORRUPTIONS[family.data.kind]
    models = sum(len(state.seeds) for state in job.states)
    forward = 5 * kinds * models * job.measuring.examples
    forward += kinds * len(job.looks) * len(job.seeds) * job.measuring.path_examples
    return 5.0 + 0.2 * models + 2 * products(family) * forward / PRODUCTS_A_SECOND
