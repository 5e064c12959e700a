"""Packages and images: what makes them, from Debian roots, locked wheels and the data in `firmware_config/`."""
