"""Keys on disk.

`keystore` has the node's signing key, `tls_key` its TLS key and what its certificate says, `private_files` files of
mode 600 that are written whole or not at all.
"""
