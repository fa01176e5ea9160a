"""annserve: recommendations from one matrix-factorisation space, served over gRPC."""

from importlib.metadata import version

__version__ = version("annserve")
