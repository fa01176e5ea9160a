"""The snapshot: its format, and how one is built, published, verified, loaded and rolled back."""
