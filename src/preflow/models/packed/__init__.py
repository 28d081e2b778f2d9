"""Several sequences in one row without padding: the layout, and attention that keeps them apart.

What makes a forward packed belongs here; kernels for one processor belong to ``cpu``.
"""
