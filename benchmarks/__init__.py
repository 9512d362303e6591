"""Benchmarks: the whole product from outside, beside its peers, with this machine's own limits from the same run."""
