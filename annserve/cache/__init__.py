"""What answers are made of, kept for the next request that needs it."""
