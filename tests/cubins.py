"""What Triton's compiler makes of a kernel for a GPU that is not there."""

import re
import subprocess
from pathlib import Path

GPUS = (80, 90, 100)  # compute capabilities, times ten: A100, H100, B200


def compiled(kernel, types, constants, multiples, capability, warps):
    """Return a kernel compiled for a capability.

    Args:
        kernel: of `triton.jit`.
        types: of its arguments, by name.
        constants: values of those that are constants.
        multiples: names of arguments that are multiples of 16.
        capability: of GPUS.
        warps: of a program.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in multiples}
    source = ASTSource(kernel, signature, constants, hints)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def usage(kernel, folder):
    """Return the bytes of stack, and of local memory that the compiler spilled to, of a compiled kernel."""
    import triton

    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    found = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"(STACK|LOCAL):(\d+)", found.stdout + found.stderr)}
