"""The net and the loop that a researcher would write: one run at a time, every position, torch's own modules."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.transformer import rotate
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.work.cell import build_rows
from muonlab.studies.grokking.work.material import build_net, build_task


class Block(nn.Module):
    def __init__(self, width: int, heads: int, ff_width: int, dropout: float, rope_base: float):
        super().__init__()
        self.heads, self.rope_base = heads, rope_base
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.query, self.key, self.value, self.attention_out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.inner, self.gate = (nn.Linear(width, ff_width, bias=False) for _ in range(2))
        self.out = nn.Linear(ff_width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        normed, positions = self.attention_norm(x), torch.arange(T, device=x.device)
        q, k, v = (each(normed).view(B, T, self.heads, -1) for each in (self.query, self.key, self.value))
        q, k = (rotate(each, positions, self.rope_base) for each in (q, k))
        mixed = F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)), is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(B, T, D))
        normed = self.feed_forward_norm(x)
        return x + self.out(self.dropout(F.silu(self.gate(normed)) * self.inner(normed)))


class Plain(nn.Module):
    """The Transformer of muonlab.nets without a shortcut: (B, T) tokens -> (B, C) logits at the last position."""

    def __init__(self, config: CellConfig):
        super().__init__()
        task, net = build_task(config), config.net
        self.embedding = nn.Embedding(task.vocabulary, net.width)
        shape = (net.width, net.heads, net.ff_width, net.dropout, net.rope_base)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(net.depth))
        self.norm = nn.RMSNorm(net.width, eps=1e-5)
        self.head = nn.Linear(net.width, task.classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[:, -1]

    def take_weights(self, config: CellConfig, seed: int = 0) -> None:
        """Take the weights that muonlab's own net draws."""
        net = build_net(config, build_task(config))
        net.reset_parameters(torch.Generator().manual_seed(seed))
        weights = {
            name.replace("attention.out", "attention_out").replace("attention.", "").replace("feed_forward.", ""): p
            for name, p in net.state_dict().items()
        }
        self.load_state_dict(weights)


class PlainLoop:
    """One run: batches by indexing; torch.optim.AdamW, or torch.optim.Muon for hidden matrices beside it."""

    def __init__(self, config: CellConfig, device: str = "cpu"):
        task = build_task(config)
        rows = build_rows(config, task, (0,), device)
        self.net = Plain(config)
        self.net.take_weights(config)
        self.net.to(device)
        self._inputs, self._labels, self._train, self._batch = rows.inputs, rows.labels[0], rows.train[0], rows.batch
        self._generator = torch.Generator().manual_seed(0)
        self._order: Tensor | None = None
        optimizer = config.optimizer
        if optimizer.name == "muon":
            hidden = [p for name, p in self.net.named_parameters() if p.ndim == 2 and name.startswith("blocks")]
            rest = [p for p in self.net.parameters() if not any(p is h for h in hidden)]
            self._optimizers = [torch.optim.Muon(hidden, lr=0.02, weight_decay=0.01), torch.optim.AdamW(rest)]
        else:
            self._optimizers = [torch.optim.AdamW(self.net.parameters())]

    def step(self, number: int) -> None:
        per_epoch = len(self._train) // self._batch
        if number % per_epoch == 0 or self._order is None:
            order = torch.randperm(len(self._train), generator=self._generator)
            self._order = self._train[order.to(self._train.device)]
        start = number % per_epoch * self._batch
        chosen = self._order[start : start + self._batch]
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        F.cross_entropy(self.net(self._inputs[chosen]), self._labels[chosen]).backward()
        for optimizer in self._optimizers:
            optimizer.step()
