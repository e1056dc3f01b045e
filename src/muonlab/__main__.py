"""`python -m muonlab` is the command `muonlab`."""

from muonlab.cli import main

main()
