"""What networks and solvers cost: computation, memory, and the peaks of a machine."""
