"""Blocks in memory."""
