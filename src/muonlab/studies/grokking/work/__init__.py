"""Work of the grokking study's jobs, with torch: what a worker process does."""
