"""What was asked and what was seen: configs, run folders, the record of the environment. No torch."""
