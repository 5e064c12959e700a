"""A node gets its certificate from the registrar, and renews it."""
