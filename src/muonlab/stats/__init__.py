"""What a set of crossing times means: survival, comparison of groups, and the honesty of many p-values."""
