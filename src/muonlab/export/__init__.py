"""A study's numbers for other tools: tidy tables, figures and trackers, by one path for every study."""
