"""Failure tests on a real network: the fault, the action, the outcome and the state left behind."""
