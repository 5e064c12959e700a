"""SQLite and the files below it.

`sqlite` opens databases, runs transactions and translates errors; `database_files` moves a damaged database aside;
`mounts` says which file system and device a path is on.
"""
