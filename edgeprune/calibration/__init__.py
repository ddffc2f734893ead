"""One pass over calibration data: activations and slopes of every layer, kept as statistics.

capture(trace, couplings, dataset, indices) → Statistics: per layer codes, moments, covariances and
Fisher weights, from which every criterion scores and every refit starts.
Elsewhere: turning statistics into scores (criteria), estimators (information).
"""
