"""SQLite and the file systems below it."""
