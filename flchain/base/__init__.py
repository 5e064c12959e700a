"""Types, errors, hashes and signatures, fixed-point numbers and Merkle trees: what every other folder uses."""
