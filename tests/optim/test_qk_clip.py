"""QK-clip: the paper's rule by hand, logits as float64 computes them, and a training that diverges without it."""

import copy
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from muonlab import MuonAdamW
from muonlab.optim.logits import of_fused
from muonlab.optim.qk_clip import QKClip, factors
from optim.training import draw

WIDTH, SIZE = 16, 4


class Attention(nn.Module):
    """Plain or fused attention, without rotary embeddings, from inputs (batch, time, WIDTH)."""

    def __init__(self, heads=4, keys=4, is_fused=False, is_causal=False, dropout=0.0):
        super().__init__()
        self.dropout = dropout
        self.num_heads, self.num_key_value_heads, self.is_fused, self.is_causal = heads, keys, is_fused, is_causal
        self.q_proj = nn.Linear(WIDTH, heads * SIZE)
        self.k_proj, self.v_proj = nn.Linear(WIDTH, keys * SIZE), nn.Linear(WIDTH, keys * SIZE)
        self.o_proj = nn.Linear(heads * SIZE, WIDTH)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        each = (layer(x).unflatten(-1, (-1, SIZE)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return tuple(h.repeat_interleave(self.num_heads // h.shape[1], 1) for h in each)

    def logits(self, x: Tensor) -> Tensor:
        q, k, _ = self.heads(x)
        logits = q @ k.transpose(2, 3) / math.sqrt(SIZE)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return logits.masked_fill(later, -torch.inf) if self.is_causal else logits

    def forward(self, x: Tensor) -> Tensor:
        if self.is_fused:
            mixed = F.scaled_dot_product_attention(*self.heads(x), is_causal=self.is_causal, dropout_p=self.dropout)
        else:
            mixed = self.logits(x).softmax(-1) @ self.heads(x)[2]
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


def made(**arguments) -> tuple[Attention, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attention(**arguments), torch.randn(3, 7, WIDTH)


def largest(net: Attention, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(net).double().logits(x.double()).amax((0, 2, 3))


def still(net: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that moves nothing, so that what a step changes is the clip."""
    return torch.optim.SGD(net.parameters(), lr=0.0)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, *inputs: Tensor) -> None:
    optimizer.zero_grad()
    net(*inputs).sum().backward()
    optimizer.step()


def test_two_heads_by_hand():
    net = Attention(heads=2, keys=2)
    with torch.no_grad():
        for layer in (net.q_proj, net.k_proj):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[0, 0] = layer.weight[SIZE, 1] = 1.0  # the first number of each head is one of the inputs
    x = torch.zeros(1, 2, WIDTH)
    x[0, 0, 0], x[0, 0, 1] = 8.0, 2.0  # logits 8 * 8 / sqrt(4) = 32 and 2 * 2 / sqrt(4) = 2
    optimizer = still(net)
    clip = QKClip(net, optimizer, tau=8.0, alpha=0.25)
    step(net, optimizer, x)
    assert clip.maxima[""].tolist() == [32.0, 2.0]
    # eta = 8 / 32: the query's rows by (1/4)^(1/4), the key's by (1/4)^(3/4); the second head as it was
    assert net.q_proj.weight[0, 0].item() == pytest.approx(0.25**0.25)
    assert net.k_proj.weight[0, 0].item() == pytest.approx(0.25**0.75)
    assert net.q_proj.weight[SIZE, 1] == net.k_proj.weight[SIZE, 1] == 1.0
    assert largest(net, x).tolist() == pytest.approx([8.0, 2.0])


@pytest.mark.parametrize(
    "way", [{}, {"is_fused": True}, {"is_fused": True, "dropout": 0.2}], ids=["plain", "fused", "without kernel"]
)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("keys", [4, 2, 1])
def test_logits_are_at_most_tau_and_other_heads_as_they_were(way, is_causal, keys):
    net, x = made(keys=keys, is_causal=is_causal, **way)
    before = largest(net, x)
    tau = float(before.sort().values[1:3].mean())  # two of the four heads are above
    values, optimizer = copy.deepcopy(net.v_proj.state_dict()), still(net)
    clip = QKClip(net, optimizer, tau)
    step(net, optimizer, x)
    torch.testing.assert_close(clip.maxima[""].double(), before, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(largest(net, x), before.clamp(max=tau), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.v_proj.state_dict(), values, rtol=0, atol=0)


def test_a_shared_key_takes_the_largest_factor_of_its_group():
    query, key = factors(torch.tensor([40.0, 160.0, 5.0, 20.0]), keys=2, tau=10.0, alpha=0.5)
    # eta = 1/4, 1/16 and 1, 1/2: the keys by (1/4)^(1/2) and 1, the queries by the rest
    assert key.tolist() == [0.5, 1.0]
    assert query.tolist() == [0.5, 0.125, 1.0, 0.5]


def test_nothing_changes_below_tau_nor_for_logits_that_are_not_finite():
    for tau, size in ((1e4, 1.0), (1e-3, 1e30)):
        net, x = made()
        optimizer, before = still(net), copy.deepcopy(net.state_dict())
        QKClip(net, optimizer, tau)
        net(x * size)
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())


def test_the_largest_is_over_all_passes_with_gradients_since_the_last_step():
    net, x = made()
    optimizer = still(net)
    clip = QKClip(net, optimizer, tau=1e4)
    for size in (3.0, 1.0):
        net(size * x).sum().backward()
    with torch.no_grad():
        net(5 * x)
    optimizer.step()
    torch.testing.assert_close(clip.maxima[""].double(), largest(net, 3 * x), rtol=1e-5, atol=1e-6)
    step(net, optimizer, x)
    torch.testing.assert_close(clip.maxima[""].double(), largest(net, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_causal", [False, True])
def test_fused_logits_block_by_block(monkeypatch, is_causal):
    monkeypatch.setattr("muonlab.optim.logits.BLOCK", 50)
    q, k, mask = draw(2, 4, 9, 3).float(), draw(2, 2, 9, 3).float(), draw(2, 1, 9, 9).float()
    mask = mask.masked_fill(mask > 1, -torch.inf)
    arguments = {"query": q, "key": k, "scale": 0.7, "attn_mask": mask, "is_causal": is_causal}
    logits = 0.7 * q.double() @ k.double().repeat_interleave(2, 1).transpose(2, 3) + mask
    if is_causal:
        logits = logits.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(of_fused(arguments, 4), logits.amax((0, 2, 3)).float())


@pytest.mark.parametrize("needs_weights", [False, True])
@pytest.mark.parametrize("kdim", [None, 10])
def test_multihead_attention_of_torch(needs_weights, kdim):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.MultiheadAttention(WIDTH, 4, kdim=kdim, batch_first=True)
        nn.init.normal_(net.in_proj_bias)
        x, y = torch.randn(2, 5, WIDTH), torch.randn(2, 6, kdim or WIDTH)
        value = torch.randn(2, 6, WIDTH)
    seen = []
    before = net(x, y, value)[0]
    for tau in (1e4, 0.5, 1e4):
        optimizer = still(net)
        clip = QKClip(net, optimizer, tau)
        net(x, y, value, need_weights=needs_weights)[0].sum().backward()
        optimizer.step()
        seen.append(clip.maxima[""])
        clip.remove()
    assert (seen[0] > 0.5).any()
    torch.testing.assert_close(seen[2], seen[0].clamp(max=0.5))
    assert not torch.equal(before, net(x, y, value)[0])


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 50, "n_positions": 8}
MODELS = {
    "LlamaForCausalLM": {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2},
    "GPT2LMHeadModel": {**GPT2, **IDS},
    "GPTNeoXForCausalLM": {**SMALL, "intermediate_size": 48},
    "FalconForCausalLM": {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "BertForMaskedLM": {**SMALL, "intermediate_size": 48},
}


@pytest.mark.parametrize("way", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers(name, way):
    """The oracle: what plain attention in float64 gives to its softmax."""
    net, reference = of_transformers(name, way), of_transformers(name, "eager").double()
    ids = torch.arange(14).view(2, 7) % 11 + 3
    expected = given_to_softmax(reference, ids)
    tau = float(torch.cat(expected).median())
    optimizer = still(net)
    clip = QKClip(net, optimizer, tau)
    net(ids, labels=ids).loss.backward()
    optimizer.step()
    for found, each in zip(clip.maxima.values(), expected, strict=True):
        torch.testing.assert_close(found.double(), each, rtol=1e-4, atol=1e-5)
    reference.load_state_dict(net.state_dict())
    first = given_to_softmax(reference, ids)[0]  # the inputs of the first layer are as before
    torch.testing.assert_close(first, expected[0].clamp(max=tau), rtol=1e-4, atol=1e-5)


def of_transformers(name: str, way: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    config = kind.config_class(**MODELS[name])
    config._attn_implementation = way
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = kind(config).eval()
    for p in net.parameters():
        p.data *= 3.0
    return net


def given_to_softmax(net: nn.Module, ids: Tensor) -> list[Tensor]:
    """Return the largest logit of each head of each layer, (heads,)."""
    seen: list[Tensor] = []
    softmax = F.softmax

    def watched(logits, *args, **kwargs):
        seen.append(logits.double().amax((0, 2, 3)))
        return softmax(logits, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "softmax", watched)
        net(ids)
    return seen


def test_a_training_whose_logits_grow_without_bound():
    ends = {}
    for tau in (None, 5.0):
        net, x = made()
        optimizer = MuonAdamW(net, lr=0.3, qk_clip=tau, rules={"*_proj.weight": "muon", "*": "adamw"})
        for _ in range(30):
            optimizer.zero_grad()
            (-net.logits(x).diagonal(dim1=2, dim2=3).mean() + net(x).square().mean()).backward()
            optimizer.step()
        ends[tau] = largest(net, x).max()
    assert ends[None] > 100.0
    assert ends[5.0] < 20.0


def test_off_by_default_and_what_a_checkpoint_has():
    plain, x = made()
    clipped = copy.deepcopy(plain)
    off, on = MuonAdamW(plain, rules={}), MuonAdamW(clipped, rules={}, qk_clip=1e4)
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    assert off.qk_clip is None
    assert not any(getattr(plain, each) for each in hooks)
    assert len(off._optimizer_step_post_hooks) + len(off._optimizer_step_pre_hooks) == 0
    for _ in range(2):
        step(plain, off, x)
        step(clipped, on, x)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), clipped.parameters(), strict=True))
    assert str(off.state_dict()) == str(on.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["stochastic", "remainder"])
def test_a_resumed_training_is_the_same(dtype, rounding):
    net, x = made()
    net, x = net.to(dtype), x.to(dtype)
    arguments = {"lr": 0.1, "qk_clip": 0.5, "rules": {}, "rounding": rounding}
    optimizer = MuonAdamW(net, **arguments)
    step(net, optimizer, x)
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    other = Attention().to(dtype)
    other.load_state_dict(states[0])
    resumed = MuonAdamW(other, **arguments)
    resumed.load_state_dict(states[1])
    for _ in range(2):
        step(net, optimizer, x)
        step(other, resumed, x)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))


def test_small_factors_are_not_lost_in_bfloat16():
    net = made()[0].bfloat16()
    optimizer = still(net)
    before = net.q_proj.weight.norm().item()
    clip = QKClip(net, optimizer, tau=1.0, alpha=1.0)
    for _ in range(100):
        for watch in clip._watches:
            watch.see(torch.full((4,), 1.001) + 1e-6 * torch.rand(()))  # below half the spacing of a bfloat16 number
        optimizer.step()
    assert net.q_proj.weight.norm().item() == pytest.approx(before * 1.001**-100, rel=0.01)


class Normed(Attention):
    def __init__(self):
        super().__init__()
        self.q_norm = nn.LayerNorm(SIZE)


class Unsaid(Attention):
    def __init__(self):
        super().__init__()
        del self.num_heads


class Quiet(Attention):
    def forward(self, x):
        weights = self.logits(x).exp()
        return self.o_proj((weights / weights.sum(-1, keepdim=True) @ self.heads(x)[2]).transpose(1, 2).flatten(2))


def frozen() -> Attention:
    net = Attention()
    net.k_proj.requires_grad_(False)
    return net


def normed_weight() -> Attention:
    net = Attention()
    nn.utils.parametrizations.weight_norm(net.q_proj)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Normed(), "normalizes query or key .q_norm."),
        (Unsaid(), "does not say how many heads"),
        (Attention(heads=4, keys=3), "4 heads of query and 3 of key"),
        (frozen(), "frozen weight, k_proj.weight"),
        (nn.Linear(4, 4), "no attention to clip"),
        (normed_weight(), "q_proj.parametrizations"),
    ],
)
def test_what_cannot_be_clipped_is_refused(net, message):
    with pytest.raises(ValueError, match=message):
        QKClip(net, still(net))


def test_latent_attention_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.DeepseekV3Config(
        **{**SMALL, "num_hidden_layers": 1}, intermediate_size=48, first_k_dense_replace=1, q_lora_rank=None
    )
    net = transformers.DeepseekV3ForCausalLM(config)
    with pytest.raises(ValueError, match="self_attn: it is latent attention"):
        QKClip(net, still(net))


def test_arguments_and_logits_that_are_not_seen():
    net, x = made()
    for arguments, message in (
        ({"qk_clip": 0.0}, "tau=0.0 is out of range"),
        ({"qk_clip": True, "capturable": True, "nonfinite": "skip"}, "with capturable=True"),
    ):
        with pytest.raises(ValueError, match=message):
            MuonAdamW(net, rules={}, **arguments)
    with pytest.raises(ValueError, match="without a model, whose attentions"):
        MuonAdamW(net.named_parameters(), rules={}, qk_clip=1.0)
    with pytest.raises(ValueError, match="alpha=2"):
        QKClip(net, still(net), alpha=2)
    quiet = Quiet()
    optimizer = MuonAdamW(quiet, rules={}, qk_clip=1.0)
    before = copy.deepcopy(quiet.state_dict())
    with pytest.raises(ValueError, match="saw no logits"):
        step(quiet, optimizer, x)
    assert all(torch.equal(p, before[name]) for name, p in quiet.state_dict().items())
