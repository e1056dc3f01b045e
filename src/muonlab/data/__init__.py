"""Data, target and chance level as one frozen object."""
