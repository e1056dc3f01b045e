"""Where cells run: jobs go in, events come out."""
