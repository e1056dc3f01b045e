"""What any study says of measured nets: robustness, margins, ranks, controls and the rules of claims. No torch."""
