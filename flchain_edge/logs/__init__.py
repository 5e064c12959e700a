"""Log lines, log files, and reading them again."""
