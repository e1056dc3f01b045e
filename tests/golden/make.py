"""Write the expectations of the golden test again: python tests/golden/make.py

Only a change that is meant to change ids, statistics or tables runs it, and its message says which and why. The runs of
the tiny presets in runs/ are results of version 3 (grokking), 2 (features) and 1 (components, inspect), computed by
`muonlab run STUDY preset=tiny` and `muonlab inspect` of the CNNs of that study of features; weights are left out.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import cases


def main() -> None:
    """Write tests/golden/expected/."""
    for name, path in cases.RECORDED.items():
        cases.write_down(f"records-{name}", cases.read(path.parent))
    with tempfile.TemporaryDirectory() as place:
        for run in cases.RUNS:
            cases.write_down(f"tiny-{run}", cases.read(cases.unpack(run, Path(place))))
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        cases.write_down("plans", cases.plans(Path(place)))


if __name__ == "__main__":
    main()
