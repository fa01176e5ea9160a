"""``python -m annserve.cli`` does what ``annserve`` does."""

from annserve.cli.app import main

main()
