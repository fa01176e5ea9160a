"""Values, errors and ports. Imports nothing else of annserve."""
