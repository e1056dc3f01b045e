"""Rates for LoRA: how large adapters grow against the frozen weights, and what loss they reach.

    python benchmarks/lora.py FIRST.txt SECOND.txt --save records/lora/lora.json    # trains what is missing
    python benchmarks/lora.py --read records/lora/lora.json                         # prints the table again

A small Llama of characters is trained on the first text, frozen, and tuned on the second through PEFT's adapters of
rank 8 on every linear layer, with scale alpha / r = 2. Seeds draw the adapters and the batches of tuning.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean, median

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from muonlab import MuonAdamW
from muonlab.report.findings import as_text
from muonlab.stats.effects import mean

WIDTH, DEPTH, LENGTH, BATCH, RANK, ALPHA = 64, 2, 64, 16, 8, 16
FIRST_STEPS, SECOND_STEPS, SEEDS = 600, 200, 5
RATES = {
    "adamw": (1e-3, 3e-3, 1e-2, 3e-2),
    "original": (5e-4, 1e-3, 2e-3, 5e-3, 2e-2),  # the last is the default
    "match_rms_adamw": (1e-3, 3e-3, 1e-2, 3e-2),
}


def optimizer_of(model, scale, rate):
    """Return the optimizer of what is trained."""
    if scale == "adamw":
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    return MuonAdamW(model, lr=rate, adamw_lr=rate, adjust_lr_fn=scale, rules={})


def batch_of(text, generator):
    starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=generator)
    return torch.stack([text[start : start + LENGTH] for start in starts])


def loss_of(model, tokens):
    return model(input_ids=tokens, labels=tokens).loss


def train(model, optimizer, text, steps, seed):
    """Train with a rate that falls to zero, after a twentieth of warm-up."""
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (steps / 20)) * (1 - step / steps)
    )
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch_of(text, generator)).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def held_out(model, text):
    generator = torch.Generator().manual_seed(0)
    return fmean(float(loss_of(model, batch_of(text, generator))) for _ in range(16))


def pretrained(text, vocabulary):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    model = LlamaForCausalLM(config)
    train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), text, FIRST_STEPS, 0)
    return model


@torch.no_grad()
def growth(model):
    """Return for each adapter its spectral norm, scale and all, as a share of the frozen weight's."""
    found = []
    for module in model.modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
            added = module.scaling["default"] * (B @ A)
            frozen = torch.linalg.matrix_norm(module.base_layer.weight, ord=2)
            found.append(float(torch.linalg.matrix_norm(added, ord=2) / frozen))
    return found


def measured(first, second, found, save):
    """Add to `found` what is missing in it, and save it after each row."""
    characters = sorted(set(first + second))
    codes = [torch.tensor([characters.index(each) for each in text]) for text in (first, second)]
    split = len(codes[1]) * 9 // 10
    base = pretrained(codes[0], len(characters))
    found["before"] = held_out(base, codes[1][split:])
    found["first"] = held_out(base, codes[0][-len(codes[0]) // 10 :])
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    rows = found.setdefault("rows", [])
    for scale, rates in RATES.items():
        for rate in rates:
            if any((row["scale"], row["rate"]) == (scale, rate) for row in rows):
                continue
            row = {"scale": scale, "rate": rate, "losses": [], "largest": [], "median": []}
            for seed in range(1, SEEDS + 1):
                torch.manual_seed(seed)
                model = LlamaForCausalLM(base.config)
                model.load_state_dict(weights)
                model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
                train(model, optimizer_of(model, scale, rate), codes[1][:split], SECOND_STEPS, seed)
                ratios = growth(model)
                row["losses"].append(held_out(model, codes[1][split:]))
                row["largest"].append(max(ratios))
                row["median"].append(median(ratios))
            rows.append(row)
            if save is not None:
                save.parent.mkdir(parents=True, exist_ok=True)
                save.write_text(json.dumps(found, indent=1) + "\n")
            print(table({**found, "rows": [row]})[-1], flush=True)
    return found


def table(found):
    """Return the lines of the table."""
    lines = [
        f"Held-out loss of the second text before tuning: {found['before']:.3f}",
        "",
        "| scale | rate | held-out loss | adapter / frozen weight, median | largest |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [as_text(mean(row["losses"])), f"{fmean(row['median']):.2f}", f"{fmean(row['largest']):.2f}"]
        lines.append(f"| {row['scale']} | {row['rate']:g} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--read", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.read is not None:
        measurements = json.loads(asked.read.read_text())
    else:
        first, second = (path.read_text()[:1_000_000] for path in asked.texts)
        begun = json.loads(asked.save.read_text()) if asked.save is not None and asked.save.exists() else {}
        measurements = measured(first, second, begun, asked.save)
    print("\n".join(table(measurements)))
