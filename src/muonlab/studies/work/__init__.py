"""What workers of several studies share."""
