"""Random inputs: networks where removed must equal masked (networks), mutated files (files)."""
