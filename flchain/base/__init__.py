"""What every room of the protocol uses: types, errors, hashes and signatures, fixed point, Merkle trees."""
