"""Measures during training: what they are, and that training is the same to the last bit with and without them."""

import copy
import json
import random
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from muonlab import MuonAdamW
from muonlab.measure import Watch
from muonlab.measure.spectra import Spectrum


class Net(nn.Module):
    """Has all that a look could disturb: dropout, running means, a frozen mode, noise in eval mode, a counter."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.3)) for _ in range(2)
        )
        self.conv = nn.Conv1d(1, 3, 4)
        self.head = nn.Linear(9, 4)
        self.blocks[1][1].eval()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        for block in self.blocks:
            x = block(x).relu()
        x = x + 0.01 * torch.rand_like(x) * random.random() * np.random.rand()
        return self.head(self.conv(x[:, None]).flatten(1))


DATA = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(64) % 4


def are_equal(first, second):
    return all(torch.equal(p, q) for p, q in zip(first.values(), second.values(), strict=True))


def train(watched, steps=6, fails_at=None):
    """Return net, losses, and what the generators would give next."""
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    net = Net()
    net.blocks[0].train()
    optimizer = MuonAdamW(net, lr=0.02)
    watch = watched(net)
    losses = []
    for step in range(1, steps + 1):
        loss = nn.functional.cross_entropy(net(DATA[:16]), LABELS[:16])
        loss.backward()
        with watch(step) if watch else nullcontext():
            if step == fails_at:
                raise ZeroDivisionError
            optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return net, losses, (torch.rand(3).tolist(), random.random(), np.random.rand()), watch


def test_training_is_the_same_to_the_last_bit():
    plain, losses, draws, _ = train(lambda net: None)
    watched, same_losses, same_draws, watch = train(lambda net: Watch(net, every=2, inputs=DATA, labels=LABELS))
    assert [row["step"] for row in watch.rows] == [2, 4, 6]
    assert (same_losses, same_draws) == (losses, draws)
    assert all(
        torch.equal(p, q) for p, q in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    modes = [[module.training for module in net.modules()] for net in (plain, watched)]
    assert modes[0] == modes[1]
    assert False in modes[0]
    assert not any(module._forward_hooks for module in watched.modules())


def test_weights_are_measured_as_their_singular_values_say():
    net, _, _, watch = train(lambda net: Watch(net, every=6, weights=["conv.*", "blocks.0.*"]))
    (row,) = watch.rows
    assert {key.partition("/")[2] for key in row if key != "step"} == {"conv.weight", "blocks.0.0.weight"}
    for name in ("conv.weight", "blocks.0.0.weight"):
        values = torch.linalg.svdvals(net.get_parameter(name).detach().flatten(1).double())
        shares = values.square() / values.square().sum()
        expected = {
            "weight_norm": values.norm(),
            "spectral_norm": values[0],
            "weight_rank": torch.special.entr(shares).sum().exp(),
            "weight_stable_rank": 1 / shares[0],
        }
        assert {key: row[f"{key}/{name}"] for key in expected} == {
            key: pytest.approx(value.item(), rel=1e-9) for key, value in expected.items()
        }


def test_the_update_is_that_of_the_step():
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    watch = Watch(net, every=1, measures="update_to_weight")
    before = net.weight.detach().clone()
    net(torch.ones(1, 4)).sum().backward()
    with watch(1):
        optimizer.step()
    # of a sum over outputs the gradient is one everywhere
    assert watch.rows == [
        {"step": 1, "update_to_weight/weight": pytest.approx(0.5 * 4 / before.norm().item(), rel=1e-6)}
    ]


def test_states_and_answers_are_those_of_the_net_in_eval_mode():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    watch = Watch(net, every=1, inputs=DATA, labels=LABELS, weights=())
    with watch(1):
        pass
    (row,) = watch.rows
    assert set(row) == {
        "step",
        "accuracy",
        "margin",
        *(f"hidden_{k}/{n}" for k in ("rank", "stable_rank") for n in "03"),
    }
    net.eval()
    spectrum = Spectrum()
    spectrum.update(net[:4](DATA))
    assert row["hidden_rank/3"] == spectrum.result().centred.ranks.effective_rank
    logits = net(DATA).double().detach()
    right = logits.gather(1, LABELS[:, None])[:, 0]
    margin = right - logits.scatter(1, LABELS[:, None], -torch.inf).amax(1)
    assert row["accuracy"] == (logits.argmax(1) == LABELS).double().mean().item()
    assert row["margin"] == margin.median().item()


def test_a_language_model_is_measured_at_its_real_tokens():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
            self.head = nn.Linear(6, 11)

        def forward(self, input_ids, attention_mask):
            x = self.embed(input_ids)
            for layer in self.layers:
                x = layer(x)
            return {"logits": self.head(x)}["logits"]

    model = Model()
    ids = torch.randint(1, 11, (40, 5))
    mask = torch.ones_like(ids)
    mask[::2, 3:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    rows = []
    for padding in (0, 7):
        inputs = {"input_ids": ids.masked_fill(mask == 0, padding), "attention_mask": mask}
        watch = Watch(model, every=1, inputs=inputs, labels=labels, weights=())
        with watch(1):
            pass
        rows += watch.rows
    assert rows[0] == rows[1]
    assert {"hidden_rank/layers.0", "hidden_rank/layers.1", "margin"} <= set(rows[0])


def test_an_exception_leaves_nothing_behind():
    caught = {}

    def watched(net):
        caught["net"], caught["watch"] = net, Watch(net, every=2, inputs=DATA)
        return caught["watch"]

    with pytest.raises(ZeroDivisionError):
        train(watched, fails_at=4)
    net, watch = caught["net"], caught["watch"]
    assert [row["step"] for row in watch.rows] == [2]
    assert not any(module._forward_hooks for module in net.modules())
    with watch(5):
        pass
    assert [row["step"] for row in watch.rows] == [2], "the weights before step 4 are not those before step 5"


def test_what_cannot_be_measured_is_said_and_training_goes_on(tmp_path):
    net, given = nn.Linear(3, 3), {"inputs": torch.randn(8, 3), "labels": torch.zeros(8, dtype=torch.int64)}
    watch = Watch(net, every=1, measures="accuracy", forward=_failing(), **given)
    with pytest.warns(UserWarning, match="step 1 has no row: RuntimeError: once"), watch(1):
        pass
    with torch.no_grad():
        net.weight[0, 0] = torch.nan
    watch = Watch(net, every=1)
    with watch(1):
        pass
    assert set(list(watch.rows[0].values())[1:]) == {None}
    (tmp_path / "folder").mkdir()
    watch = Watch(net, every=1, path=tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.warns(UserWarning, match="Is a directory|expected a new file"), watch(1):
        pass
    assert len(watch.rows) == 1


def _failing():
    calls = []

    def forward(net, batch):
        calls.append(batch)
        if len(calls) > 1:
            raise RuntimeError("once")
        return net(batch)

    return forward


def test_rows_are_lines_of_a_file_that_a_resumed_training_goes_on_with(tmp_path):
    path = tmp_path / "new" / "watch.jsonl"
    *_, watch = train(lambda net: Watch(net, every=1, path=path), steps=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == watch.rows
    path.write_text(path.read_text() + '{"step": 5, "to')  # killed while it wrote
    net = Net()
    again = Watch(net, every=1, path=path)
    for step in (3, 4):  # from the checkpoint at step 2
        with again(step):
            pass
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert json.loads(path.read_text().splitlines()[-1]) == again.rows[-1]
    for step in (4, 5):  # the same object, resumed
        with again(step):
            pass
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in again.rows] == [3, 4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0: expected a whole number of steps, 1 or more"),
        ({"measures": ["rank"]}, "measures has 'rank'; expected some of weight_norm, "),
        ({"measures": ["hidden_rank"]}, "hidden_rank needs inputs="),
        ({"measures": "margin", "inputs": DATA}, r"margin needs inputs= and labels="),
        ({"weights": ["body.*"]}, r"weights='body.\*' matches no matrix of the model; there are: blocks.0.0.weight"),
        ({"inputs": DATA, "taps": ["block"]}, "taps='block' matches no module"),
        ({"inputs": DATA, "labels": LABELS[:3]}, r"labels \(3,\) for logits \(64, 4\)"),
        ({"inputs": DATA, "labels": LABELS + 1}, "labels are torch.int64 up to 4: expected int64 below 4"),
        (
            {"inputs": DATA, "labels": torch.full_like(LABELS, -100)},
            "labels are -100 at most, so every one is left out",
        ),
        ({"path": __file__}, "expected a new file, or JSON lines with a step each"),
    ],
)
def test_mistakes_are_said_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        Watch(Net(), **options)


def test_a_compiled_model_is_measured_within():
    net = Net()
    compiled = torch.compile(net, backend="eager")
    watch = Watch(compiled, every=1, inputs=DATA)
    with watch(1):
        pass
    assert {"weight_norm/head.weight", "hidden_rank/blocks.0"} <= set(watch.rows[0])


def test_lightning_trains_the_same_with_the_callback(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = Net(), []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return MuonAdamW(self, lr=0.02)

    def fit(is_watched):
        lightning.seed_everything(0, verbose=False)
        module = Module()
        watch = Watch(module, every=2, inputs=DATA, taps=["net.blocks.*"], path=tmp_path / "watch.jsonl")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Lightning's
            trainer = lightning.Trainer(
                max_steps=5, accumulate_grad_batches=2, gradient_clip_val=1.0, accelerator="cpu", logger=False,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                callbacks=[watch.for_lightning()] if is_watched else [],
            )  # fmt: skip
            data = torch.utils.data.TensorDataset(DATA, LABELS)
            trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=16, shuffle=True))
        return module, watch.rows

    (plain, _), (watched, rows) = fit(False), fit(True)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["update_to_weight/net.head.weight"] > 0 for row in rows)
    assert watched.losses == plain.losses
    assert are_equal(plain.state_dict(), watched.state_dict())


def test_trainer_trains_the_same_with_the_callback(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    rows = [
        {"input_ids": row, "labels": row}
        for row in torch.randint(20, (64, 8), generator=torch.Generator().manual_seed(3))
    ]
    inputs = {"input_ids": torch.stack([row["labels"] for row in rows])}

    def fit(is_watched):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config)
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=5, per_device_train_batch_size=4, gradient_accumulation_steps=2,
            report_to="none", use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        watch = Watch(model, every=2, inputs=inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = transformers.Trainer(
                model, arguments, train_dataset=rows, optimizers=(MuonAdamW(model), None),
                callbacks=[watch.for_trainer()] if is_watched else [],
            )  # fmt: skip
            trainer.train()
        return copy.deepcopy(model.state_dict()), watch.rows

    (plain, _), (watched, found) = fit(False), fit(True)
    assert [row["step"] for row in found] == [2, 4]
    assert {"hidden_rank/transformer.h.0", "update_to_weight/transformer.h.1.mlp.c_fc.weight"} <= set(found[0])
    assert all(value > 0 for row in found for key, value in row.items() if key.startswith("update"))
    assert are_equal(plain, watched)


def test_a_callback_without_its_package_says_what_to_install(monkeypatch):
    for name in ("lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    watch = Watch(Net())
    with pytest.raises(ImportError, match=r"needs the package lightning .*pip install lightning"):
        watch.for_lightning()
    with pytest.raises(ImportError, match=r"needs the package transformers .*pip install transformers"):
        watch.for_trainer()
