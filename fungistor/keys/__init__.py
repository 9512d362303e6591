"""Key hierarchy: root, tenant, object, list; wrapping and derivation."""
