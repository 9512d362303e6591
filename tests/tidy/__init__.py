"""What the repository promises of itself."""
