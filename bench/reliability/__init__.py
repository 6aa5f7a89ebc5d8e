"""What the compiled kernels withstand: sanitizers, and millions of arguments that lie.

`python -m bench.reliability.sanitize` runs the property tests on kernels built with
AddressSanitizer and UndefinedBehaviorSanitizer, `python -m bench.reliability.fuzz_kernels` calls
every kernel with generated arguments, and `python -m bench.reliability.render` writes what both
found to docs/reliability.md.
"""
