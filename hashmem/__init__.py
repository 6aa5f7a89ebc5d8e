"""hashmem: an embedded external memory for language-model pipelines."""

from hashmem._version import __version__

__all__ = ["__version__"]
