"""The measured tables of docs/*.md, written from benchmarks/results."""
