"""Models: load what a user has, trace it to one graph, run it, save it."""
