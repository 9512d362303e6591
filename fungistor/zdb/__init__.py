"""The append-only store of a member: its RESP protocol, client and daemon."""
