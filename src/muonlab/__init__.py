"""muonlab: the optimizer Muon, and a laboratory that measures what an optimizer does to a network."""

__version__ = "0.1.0"
