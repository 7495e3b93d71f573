"""The zoo beside its peers, measured in one run: `python -m benchmarks.run`, then `python -m benchmarks.table`."""
