"""What an operator asks of a gateway beside answers: limits, lists, logs, metrics, leave to serve."""
