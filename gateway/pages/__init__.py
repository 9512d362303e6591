"""The pages the gateway makes itself: whole in one answer, without script and without anything from elsewhere."""
