"""A network on one machine: `layout` makes its folder, `broker` runs its broker, `datasets` and `splits` its data."""
