# Kills of one full run at random moments; resumes where results/kills.json ends.
KILLS ?= 50

.PHONY: bench-kills
bench-kills: $(READY)
	$(PY) -m benchmarks.kills.run $(KILLS)
