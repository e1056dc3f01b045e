#!/bin/sh
# `muonlab compare suite=pocket` with ten public optimizers; stopped, the same command goes on.
# It needs the extra bench: pip install -c constraints.txt -e ".[lab,bench]"
exec muonlab compare suite=pocket trials=8 seeds=5 horizons=1 \
    optimizers=adamw,muon,normuon=muon,adamuon=muon,torchmuon=examples/torch_muon.py:torch_muon,adam=torch.optim:Adam,sgd,lion=pytorch_optimizer:Lion,soap=pytorch_optimizer:SOAP,prodigy=pytorch_optimizer:Prodigy \
    normuon.variant=normuon adamuon.variant=adamuon \
    torchmuon.lr=3e-4..1e-1 torchmuon.adamw_factor=0.1..10 \
    adam.lr=3e-4..1e-1 adam.weight_decay=0 \
    lion.lr=1e-4..3e-2 soap.lr=3e-4..1e-1 prodigy.lr=0.1..10 \
    "$@"
