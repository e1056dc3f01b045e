"""Populations as the benchmark times them, and the work that a step of one member is."""

import time

from optimizer.machine import clock
from torch.utils.flop_counter import FlopCounterMode

from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.studies.grokking.work.cell import build_population, build_rows
from muonlab.studies.grokking.work.material import build_task
from muonlab.study.optimizers import RatedAdamW, RatedMuon


def cell(optimizer: str, depth: int, count: int) -> CellConfig:
    """Return a cell of the paper's sizes: width 128, batch 512, modulus 97, `count` members."""
    return CellConfig(
        study="benchmark",
        task=TaskConfig(name="add", modulus=97, train_share=0.8),
        net=NetConfig(depth=depth, width=128, ff_width=512),
        loss="softmax",
        optimizer=RatedMuon(polar_dtype="bfloat16") if optimizer == "muon" else RatedAdamW(),
        protocol=ProtocolConfig(batch=512),
        seeds=tuple(range(count)),
    )


class Variant:
    """A population with its rows, and where its time goes."""

    def __init__(self, config: CellConfig, *, compiled: bool, device: str = "cpu"):
        self.count, self._device = len(config.seeds), device
        task = build_task(config)
        self.rows = build_rows(config, task, config.seeds, device)
        self.population = build_population(config, task, config.seeds, device)
        self.in_optimizer: list[float] = []
        self.compile_seconds: float | None = None
        batch = self.rows(0)
        if compiled:
            start = time.perf_counter()
            if not self.population.compile(*batch):
                raise SystemExit("there is no compiler on this machine; leave it out with --engines eager")
            self.compile_seconds = time.perf_counter() - start
        else:
            self.population.choose_height(*batch)
        plain = self.population.optimizer.step_stacked

        def timed(*arguments) -> None:
            start = clock(self._device)()
            plain(*arguments)
            self.in_optimizer.append(clock(self._device)() - start)

        self.population.optimizer.step_stacked = timed
        self._times: list[float] = []

    def step(self, number: int) -> None:
        start = clock(self._device)()
        self.population.step(*self.rows(number), number)
        self._times.append(clock(self._device)() - start)

    def evaluate(self) -> float:
        """Return the seconds of one evaluation on all rows."""
        start = clock(self._device)()
        self.population.evaluate(self.rows.inputs, self.rows.labels)
        return clock(self._device)() - start

    def shares(self, cadence: int) -> dict[str, float | None]:
        """Return the shares of the time that go to the optimizer and, every `cadence` steps, to an evaluation."""
        half = len(self._times) // 2
        step = sorted(self._times)[half]
        evaluation = min(self.evaluate() for _ in range(2))
        inside = sorted(self.in_optimizer)[len(self.in_optimizer) // 2] if self.in_optimizer else None
        return {
            "optimizer_share": None if inside is None else inside / step,
            "evaluation_share": evaluation / (evaluation + cadence * step),
            "height": self.population.gradients.height,
            "compile_seconds": self.compile_seconds,
        }


def flops(config: CellConfig) -> dict[str, float]:
    """Return the floating-point operations of all matrix products in a step of one member: the net's and Muon's."""
    task = build_task(config)
    rows, population = (
        build_rows(config, task, config.seeds, "cpu"),
        build_population(config, task, config.seeds, "cpu"),
    )
    plain, inside = population.optimizer.step_stacked, FlopCounterMode(display=False)

    def counted(*arguments) -> None:
        with inside:
            plain(*arguments)

    population.optimizer.step_stacked = counted
    with FlopCounterMode(display=False) as whole:
        population.step(*rows(0), 0)
    orthogonalization = float(inside.get_total_flops())
    return {"net": float(whole.get_total_flops()) - orthogonalization, "orthogonalization": orthogonalization}
