"""Where the log lies. Joined in node only."""
