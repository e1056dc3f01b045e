"""The engine of studies: settings, comparisons, controls, verdicts. No torch."""
