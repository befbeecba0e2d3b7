"""Studies: the same recipe under different settings and seeds, a row a run. `python -m benchmarks.study` runs and shows them."""
