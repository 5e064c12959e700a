"""`flchain sim`: a deterministic network of the production machines, with faults and liars, from one seed."""
