# The bake-off, LeNet-300-100, reliability of rankings, and the article's experiment. All resume where they stopped.
.PHONY: bench-bakeoff bench-article bench-lenet bench-ranking
CRITERIA ?= ib-gauss,random,taylor,l2,ib-jmi,mrmr,ib-edge,fpgm,hsic-lasso,vib
CONTROLS ?= ib-gauss,random,l2,taylor
BEST ?= $(CONTROLS),fpgm,ib-edge,vib
OUTSIDE ?= tp-l2,tp-taylor,tp-bn-scale
IMAGES ?= fashion_plain fashion_dw
OTHERS ?= $(IMAGES) debian_text
BAKEOFF := $(PY) -m benchmarks.criteria.bakeoff

bench-bakeoff: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check matplotlib
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	$(BAKEOFF) --criteria $(CRITERIA) --recovery none,compensate,finetune
	$(BAKEOFF) --criteria $(OUTSIDE),scratch --recovery compensate,finetune
	$(BAKEOFF) --criteria $(CONTROLS) --recovery compensate,finetune --ratios 0.25 --seeds 0,1,2,3,4
	$(BAKEOFF) --criteria ib-gauss,l2,taylor,tp-l2,tp-taylor --recovery compensate,finetune --ratios 0.25,0.15 --seeds 0,1,2,3,4
	$(BAKEOFF) --criteria ib-gauss,random --recovery compensate --allocation sensitivity
	for net in $(OTHERS); do \
	  $(BAKEOFF) --net $$net --criteria $(BEST) --recovery compensate,finetune --ratios 0.5,0.25 && \
	  $(BAKEOFF) --net $$net --criteria ib-gauss,random,l2 --recovery compensate,finetune --ratios 0.5,0.25 \
	    --allocation sensitivity || exit 1; \
	done
	for net in $(IMAGES); do \
	  $(BAKEOFF) --net $$net --criteria $(OUTSIDE) --recovery compensate,finetune --ratios 0.5,0.25 || exit 1; \
	done
	$(BAKEOFF) --net debian_text --criteria tp-l2,tp-taylor --recovery compensate,finetune --ratios 0.5,0.25
	$(PY) -m benchmarks.criteria.variants
	$(PY) -m benchmarks.criteria.scoring
	$(PY) -m benchmarks.criteria.theta
	$(PY) -m benchmarks.criteria.shares
	for net in fashion_resnet $(OTHERS); do \
	  $(PY) -m benchmarks.criteria.shape_latency --net $$net && $(BAKEOFF) --net $$net --table || exit 1; \
	done
	$(PY) -m benchmarks.pages.fill

bench-article: $(READY)
	$(PY) -m benchmarks.criteria.article
	$(PY) -m benchmarks.pages.fill

bench-lenet: $(READY)
	$(PY) -m benchmarks.criteria.lenet
	$(PY) -m benchmarks.criteria.lenet --prune-inputs
	$(PY) -m benchmarks.pages.fill

bench-ranking: $(READY)
	$(PY) -m benchmarks.criteria.ranking --net fashion_plain
	$(PY) -m benchmarks.pages.fill
