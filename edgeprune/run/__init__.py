"""Compose the stages: load → trace → score → plan → cut → recover → export → measure → report.

compress   the whole pipeline in one run folder, resumable
prune      removal alone, by mask or criterion
inspect    what can be removed, and what cannot
stages     scoring and exporting by themselves
parts      models of which torch.export takes only parts

Elsewhere: the stages (the rooms below), printing (cli).
"""
