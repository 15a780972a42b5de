"""`tfn bench`: the same programs on tfn and on its peers, in one run. See docs/benchmarks.md."""
