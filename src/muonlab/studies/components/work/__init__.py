"""The jobs of the components study: a simulation of the problem, and its agreement with the closed forms."""
