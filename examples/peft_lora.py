"""Fine-tune a small Llama with LoRA (PEFT) and MuonAdamW, save the adapter and the optimizer, and resume.

    pip install peft transformers accelerate
    python examples/peft_lora.py                                    # a minute on a laptop
    python examples/peft_lora.py --steps 20 --width 32 --depth 1    # seconds

Muon takes the two factors of every adapter, A of (rank, inputs) and B of (outputs, rank), each as a matrix of its own.
The base model is frozen and has no state. Nothing is downloaded: the base is made of a config and trained on Python's
own documentation, then fine-tuned to its upper-case twin.
"""

import argparse
import importlib.util
import sys
import tempfile
from pydoc_data.topics import topics

import torch
from torch import Tensor

from muonlab import MuonAdamW, split_params

missing = [name for name in ("peft", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
if missing:
    print(f"skipped: {' and '.join(missing)} not found; pip install peft transformers accelerate")
    sys.exit(0)
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=100, help="of pretraining, and again of fine-tuning")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--context", type=int, default=64, help="characters a sequence")
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--depth", type=int, default=2)
parser.add_argument("--rank", type=int, default=4, help="of the adapters")
parser.add_argument("--lr", type=float, default=0.02, help="of Muon, which has the adapters")
args = parser.parse_args()

# ------------------------------------------------------------------------------------------------------ data and model

text = "\n".join(topics[name] for name in sorted(topics))
alphabet = sorted({*text, *text.upper()})
number = {character: index for index, character in enumerate(alphabet)}


def batch(source: str, seed: int) -> Tensor:
    """Return sequences of characters, (B, T)."""
    starts = torch.randint(len(source) - args.context, (args.batch,), generator=torch.Generator().manual_seed(seed))
    return torch.tensor([[number[c] for c in source[start : start + args.context]] for start in starts.tolist()])


def pretrained() -> LlamaForCausalLM:
    """Return the base model, trained for some steps."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=args.width,
        intermediate_size=3 * args.width,
        num_hidden_layers=args.depth,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=args.context,
    )
    model = LlamaForCausalLM(config)
    train(model, MuonAdamW(model, lr=0.02, adamw_lr=3e-3), text, range(args.steps))
    return model


def train(model, optimizer, source: str, steps: range) -> list[float]:
    """Return the loss at each step."""
    losses = []
    for step in steps:
        ids = batch(source, seed=step)
        loss = model(input_ids=ids, labels=ids).loss  # the model shifts the labels itself
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# ---------------------------------------------------------------------------------------------------------- fine-tuning

base = pretrained()
weights = {name: value.clone() for name, value in base.state_dict().items()}
model = get_peft_model(base, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear"))
print(split_params(model), end="\n\n")
optimizer = MuonAdamW(model, lr=args.lr, weight_decay=0)

with tempfile.TemporaryDirectory() as folder:
    half = args.steps // 2
    losses = train(model, optimizer, text.upper(), range(half))
    model.save_pretrained(folder)  # the adapter alone
    torch.save(optimizer.state_dict(), f"{folder}/optimizer.pt")
    losses += train(model, optimizer, text.upper(), range(half, args.steps))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {args.steps} steps")

    # --- resume: the base, the adapter that was saved (is_trainable: else it is frozen), the optimizer's state
    base = LlamaForCausalLM(base.config)
    base.load_state_dict(weights)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True)
    optimizer = MuonAdamW(model, lr=args.lr, weight_decay=0)
    optimizer.load_state_dict(torch.load(f"{folder}/optimizer.pt", weights_only=True))
    again = train(model, optimizer, text.upper(), range(half, args.steps))
    difference = max(abs(a - b) for a, b in zip(again, losses[half:], strict=True))
    print(f"resumed at step {half}: {len(again)} losses, largest difference {difference:g}")

# ------------------------------------------------------------------------------- merged: a plain model without adapters

ids = batch(text.upper(), seed=10**6)
model.eval()
with torch.no_grad():
    apart = model(input_ids=ids).logits
    merged = model.merge_and_unload()(input_ids=ids).logits
print(f"merged: largest difference of a logit {(apart - merged).abs().max():.1e}")
