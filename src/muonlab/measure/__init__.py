"""Functions of a curve, or of features and labels; and corrupted inputs to measure on."""
