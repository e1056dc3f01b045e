"""One package per question: which cells answer it, and what they say."""
