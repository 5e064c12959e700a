"""Sensors for people without hardware: `flchain emulate`. Each speaks as the real one does, to whoever listens."""
