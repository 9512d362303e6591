"""Every write to the catalog, as a frozen command with versioned bytes."""
