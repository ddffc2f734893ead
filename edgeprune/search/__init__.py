"""How much each group gives up: budget → goals → sensitivity → allocation → rounds → the accepted network.

budget, groups, allocate   the knapsack over widths; no torch
costs, goals               MACs, parameters and predicted milliseconds of a removal; shares to reach
sensitivity                loss curves measured per group
plans, plan_correction     a plan, corrected by timing whole files
rounds, search             one prune-recover round, and the loop over rounds

Elsewhere: scores (criteria), the latency model (latency, session), the files that can ship (pareto).
"""
