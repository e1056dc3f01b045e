"""Figures and the report: they draw what a study found and know no study. No torch."""
