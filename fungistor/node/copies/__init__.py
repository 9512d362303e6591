"""The catalog's copies in the pool: what was committed, and the keys to it, before anybody is told that it was."""
