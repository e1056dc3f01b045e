"""What benchmarks/optim.py is made of: parameter sets, contenders, and what is measured of them."""
