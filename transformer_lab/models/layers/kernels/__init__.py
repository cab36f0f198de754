"""Attention kernels: one module each, one function `attend`, the same result from all of them.

    attend(q, k, v, *, queries, keys, causal, window, bias) -> (N, H, K)

q is (N, H, K); k and v are (M, G, K), where G divides H (grouped-query attention; Ainslie et al., 2023).
`queries` and `keys` are the `Layout`s of the two sides: sequence i of one only sees sequence i of the other.
`causal` hides keys that come after the query, `window` those `window` or more positions away (None: no limit).
`bias(query_positions, key_positions)` gives what is added to the scores, (H, Q, K), or None.
"""
