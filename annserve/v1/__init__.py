"""Generated from proto/annserve/v1 by scripts/generate.py; never edited."""
