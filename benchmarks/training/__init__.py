"""What benchmarks/engine.py compares."""
