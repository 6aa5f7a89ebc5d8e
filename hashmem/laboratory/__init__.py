"""The collision laboratory: how hash tables collide, measured beside theory. Knows tables only.

`hashmem bench collisions` runs it; from Python, `hashmem.laboratory.collisions.run`. Histograms of
a table of your own, and the test that compares them, are in `hashmem.tables.statistics`.
"""
