# Criteria against each other, and the article's experiment; both go on where they stopped.
.PHONY: bench-bakeoff bench-article
CRITERIA ?= ib-gauss,random,taylor,l2,ib-jmi,mrmr,ib-edge,fpgm,hsic-lasso,vib
OUTSIDE ?= tp-l2,tp-taylor,tp-bn-scale

bench-bakeoff: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check matplotlib
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	$(PY) -m benchmarks.bakeoff --net fashion_resnet --criteria $(CRITERIA) --recovery none,recalibrate,compensate,finetune
	$(PY) -m benchmarks.bakeoff --net fashion_resnet --criteria $(OUTSIDE) --recovery recalibrate,compensate,finetune
	$(PY) -m benchmarks.bakeoff --net fashion_resnet --criteria ib-gauss,random --allocation sensitivity
	$(PY) -m benchmarks.bakeoff --net fashion_resnet --criteria ib-gauss,random --ratios 0.25 --seeds 0,1,2,3,4
	for net in fashion_dw fashion_plain; do \
	  $(PY) -m benchmarks.bakeoff --net $$net --criteria ib-gauss,random,taylor,l2,fpgm --recovery compensate,finetune || exit 1; \
	done

bench-article: $(READY)
	$(PY) -m benchmarks.article
