"""The tasks of benchmarks/compare.py, as a user would write them: a GPT, an MLP, a CNN, and a residual net with BatchNorm."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from muonlab.data import library
from muonlab.nets.gpt import GPT
from muonlab.nets.resnet import ResNet
