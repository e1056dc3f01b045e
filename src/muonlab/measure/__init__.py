"""Functions of a curve, or of features and labels."""
