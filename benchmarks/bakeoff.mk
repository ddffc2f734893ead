# Criteria against each other, LeNet, trust in rankings, and the article's experiment. All go on where they stopped.
.PHONY: bench-bakeoff bench-article bench-lenet bench-ranking
CRITERIA ?= ib-gauss,random,taylor,l2,ib-jmi,mrmr,ib-edge,fpgm,hsic-lasso,vib
CONTROLS ?= ib-gauss,random,l2,taylor,fpgm
OUTSIDE ?= tp-l2,tp-taylor,tp-bn-scale

bench-bakeoff: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check matplotlib
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	$(PY) -m benchmarks.bakeoff --criteria $(CRITERIA) --recovery none,compensate,finetune
	$(PY) -m benchmarks.bakeoff --criteria $(OUTSIDE),scratch --recovery compensate,finetune
	$(PY) -m benchmarks.bakeoff --criteria ib-gauss,random --recovery compensate --seeds 0,1,2,3,4
	$(PY) -m benchmarks.bakeoff --criteria ib-gauss,random --recovery compensate --allocation sensitivity
	for net in fashion_plain fashion_dw debian_text; do \
	  $(PY) -m benchmarks.bakeoff --net $$net --criteria $(CONTROLS) --recovery compensate,finetune || exit 1; \
	done
	for net in fashion_resnet fashion_plain fashion_dw debian_text; do \
	  $(PY) -m benchmarks.bakeoff --net $$net --table; done

bench-article: $(READY)
	$(PY) -m benchmarks.article

bench-lenet: $(READY)
	$(PY) -m benchmarks.lenet
	$(PY) -m benchmarks.lenet --prune-inputs

bench-ranking: $(READY)
	$(PY) -m benchmarks.ranking --net fashion_plain
