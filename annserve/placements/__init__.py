"""Placements: named recipes in files, one for each place where items are shown, checked and compiled at load."""
