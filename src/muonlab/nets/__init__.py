"""Networks, plain nn.Modules that torch.func can stack."""
