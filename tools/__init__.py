"""What people run around a chain; each room is a command of `flchain`, and no product room imports any of it."""
