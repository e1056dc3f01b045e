"""Statistics of crossing times and of groups of runs: survival, comparisons, effects, and p-values of many tests."""
