"""Updates of the agent's own package: what the agent does as itself, and what root does with what it is handed."""
