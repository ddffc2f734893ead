"""What a model's outputs mean: metrics, and bounds on what was lost.

metrics   accuracy, top-k and metrics of the user's own
bounds    intervals of shares and of paired losses
"""
