"""The serialized truth: a log of commands and the state it gives."""
