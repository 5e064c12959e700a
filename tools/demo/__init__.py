"""`flchain demo`: a whole network on one machine, each node a process of its own, watched from outside."""
