"""Measurements of hashmem beside its rivals: `python -m bench` runs all, `--quick` in seconds.

Run from the checkout with the extra `bench` installed in editable form (`pip install -e .[bench]`),
so that the compiled kernels stand beside the sources. A rival that is not installed is left out and
named in the results.
"""
