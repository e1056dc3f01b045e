"""A transformers Trainer for `muonlab compare`: a small GPT-2 on the characters of Python's own documentation.

pip install 'muonlab[lab,hf]'
muonlab compare examples/compare_trainer.py:task trials=8 steps=200 evaluations=5
"""

from pydoc_data.topics import topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

CONTEXT, VALIDATION = 64, 64  # characters of a sequence, sequences to evaluate on

text = "\n".join(topics[name] for name in sorted(topics))
alphabet = sorted(set(text))
number = {character: index for index, character in enumerate(alphabet)}
tokens = torch.tensor([number[character] for character in text])
rows = [{"input_ids": row, "labels": row} for row in tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)]


def model():
    """Return a model with new weights."""
    config = GPT2Config(
        vocab_size=len(alphabet),
        n_positions=CONTEXT,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def task(seed):
    """Return a Trainer; its optimizer, schedule, length and seed are those of each run."""
    arguments = TrainingArguments(per_device_train_batch_size=16, per_device_eval_batch_size=64, use_cpu=True)
    return Trainer(model_init=model, args=arguments, train_dataset=rows[:-VALIDATION], eval_dataset=rows[-VALIDATION:])
