"""Measures of checkpoints that a user already has."""
