"""A device's view of the chain: which headers it trusts, and which model follows from them."""
