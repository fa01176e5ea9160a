"""``python -m annserve.cli`` does what ``annserve`` does."""

from annserve.cli import main

main()
