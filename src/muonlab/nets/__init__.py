"""Small networks, plain nn.Modules that torch.func can stack."""
