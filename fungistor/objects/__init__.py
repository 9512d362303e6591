"""Use cases: publish, read, verify. Knows ports, no adapters."""
