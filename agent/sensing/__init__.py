"""Sensor data as values: parsers, clocks, windows and labels. Pure: bytes, texts and arrays in, values out."""
