"""Bugs planted by tests into the product's processes, to see that the campaigns catch them."""
