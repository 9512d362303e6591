"""What this gateway refuses to serve: lists in the compact denylist format (IPIP-383)."""
