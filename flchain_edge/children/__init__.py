"""Child processes: `apart` runs work in one, `ends` says how it ended, `native_lines` filters what libraries write."""
