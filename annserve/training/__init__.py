"""Interactions in, vectors out: reading, library trainers, fold-in, imported vectors, evaluation."""
