"""Weights: cards, where bytes come from, checked and cached; their formats; and their names made ours.

Weights in memory are `dict[str, np.ndarray]` with dotted names such as "encoder.forward.0.kernel". This room knows
numpy only.
"""
