"""The command `muonlab`, and `python -m muonlab`: signals are heard while the command line is still being imported."""

from muonlab.jobs.signals import at_once


def main() -> None:
    """Run the command line."""
    at_once()
    from muonlab import cli

    cli.main()


if __name__ == "__main__":
    main()
