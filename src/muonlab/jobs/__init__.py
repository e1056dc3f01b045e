"""Where jobs run: jobs go in, events come out."""
