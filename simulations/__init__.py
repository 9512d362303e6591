"""Production rooms under seeded fault plans, on virtual time."""
