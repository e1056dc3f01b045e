"""Train a small Llama with Hugging Face's Trainer and MuonAdamW, on Python's own documentation.

    pip install transformers accelerate
    python examples/hf_trainer.py                                                  # some minutes on a laptop
    python examples/hf_trainer.py --steps 30 --width 32 --depth 1 --context 32     # seconds

Trainer takes an optimizer in two ways, and both are shown: a factory, which Trainer calls with its model, and an
optimizer with its scheduler, made beforehand. The first run is then resumed from its checkpoint at half, with the same
weights at the end. Nothing is downloaded: the model is made of a config on the spot.
"""

import argparse
import importlib.util
import sys
import tempfile
from pydoc_data.topics import topics

import torch

from muonlab import MuonAdamW, hf_factory, split_params

missing = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
if missing:
    print(f"skipped: {' and '.join(missing)} not found; pip install transformers accelerate")
    sys.exit(0)
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--context", type=int, default=128, help="characters a sequence")
parser.add_argument("--width", type=int, default=128)
parser.add_argument("--depth", type=int, default=4)
parser.add_argument("--lr", type=float, default=0.02, help="of Muon")
parser.add_argument("--adamw-lr", type=float, default=3e-3, help="of AdamW")
args = parser.parse_args()

# ------------------------------------------------------------------------------------------------------ data and model

text = "\n".join(topics[name] for name in sorted(topics))
alphabet = sorted(set(text))
number = {character: index for index, character in enumerate(alphabet)}
tokens = torch.tensor([number[character] for character in text])
rows = tokens[: len(tokens) // args.context * args.context].view(-1, args.context)
dataset = [{"input_ids": row, "labels": row} for row in rows]  # the model shifts the labels itself


def build(seed: int = 0) -> LlamaForCausalLM:
    """Return a fresh model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=args.width,
        intermediate_size=3 * args.width,
        num_hidden_layers=args.depth,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=args.context,
    )
    return LlamaForCausalLM(config)


def show(trainer: Trainer, name: str) -> None:
    """Train, and print the losses and what the optimizer was."""
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate wraps it
    print(f"{name}: {type(optimizer).__name__}, loss {losses[0]:.4f} -> {losses[-1]:.4f} in {args.steps} steps")


with tempfile.TemporaryDirectory() as folder:
    # Of Trainer's arguments, learning_rate, weight_decay and optim are not used: the optimizer has its own.
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, args.steps // 20),
        max_grad_norm=1.0,
        logging_steps=max(1, args.steps // 10),
        save_strategy="steps",
        save_steps=max(1, args.steps // 2),
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
    )

    # ------------------------------------------------------------------------------------------- one way: a factory

    model = build()
    print(split_params(model), end="\n\n")
    hyper = {"lr": args.lr, "adamw_lr": args.adamw_lr, "weight_decay": 0.01}
    factory = (hf_factory, hyper)
    show(Trainer(model, arguments, train_dataset=dataset, optimizer_cls_and_kwargs=factory), "factory")

    # --------------------------------------------------- resumed: another start, which the checkpoint at half replaces

    resumed = build(seed=1)
    trainer = Trainer(resumed, arguments, train_dataset=dataset, optimizer_cls_and_kwargs=factory)
    trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-{arguments.save_steps}")
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    difference = max((p - q).abs().max().item() for p, q in pairs)
    print(f"resumed at step {arguments.save_steps}: largest difference of a weight {difference:g}")

    # --------------------------------------------------------------- the other way: an optimizer and its own schedule

    model = build()
    optimizer = MuonAdamW(model, **hyper)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps)
    show(Trainer(model, arguments, train_dataset=dataset, optimizers=(optimizer, schedule)), "optimizers=")
