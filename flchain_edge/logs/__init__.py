"""Log lines.

`setup` sends them to stderr and to a bounded file, `reader` finds them again in the journal or that file. `file` and
`lines` are parts of these.
"""
