"""A network on one machine: broker, nodes, data sets and their splits."""
