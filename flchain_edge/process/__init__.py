"""What a node's process is made of: command line, event loop, service notices, chain files."""
