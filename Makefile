# Melodify. `make help` lists what there is; each target sets up what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
AUDIT  := .venv-audit
TAGGERS := .venv-taggers
# Carries the schema of Google's provider for Terraform, 6.50; it is the last of its kind.
SCHEMA := cdktf-cdktf-provider-google==16.12.1

.PHONY: help run test lab web lint audit licences sbom docs bench bench-musicgen bench-web bench-taggers dataset cloud-local \
	notebooks-cloud notebooks-gcp cloud-clean images images-scan images-push build-local constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# KEEP=gs://…: what notebooks became is put there by the run itself, also when one failed.
keeping = ; status=$$?; $(if $(KEEP),$(BIN)/melodify notebooks keep "$(KEEP)" || status=1;) exit $$status

run: $(READY) ## the whole flow: dataset, tuning, pipeline, a song for a picture (IMAGE=photo.jpg)
	@$(BIN)/melodify notebooks run $(if $(IMAGE),--image "$(IMAGE)")$(keeping)

test: $(READY) ## all tests, on two cores (ARGS="-k upload" for some, ARGS="-n0 --pdb" to look into one)
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

lab: $(READY) ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=. --ServerApp.tornado_settings="$(LARGEST)" notebooks/01_quickstart.ipynb
# Bytes that a form may send: a picture of 30 MiB, which Tornado's own 10 MiB would cut off.
LARGEST := {'websocket_max_message_size': 41_943_040}

web: $(READY) ## the web application: upload a picture, listen (ARGS="--port 8001")
	@$(BIN)/melodify web $(ARGS)

lint: $(READY) ## ruff, mypy, hadolint, and no outputs in notebooks
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/nbstripout --verify notebooks/*.ipynb
	@$(BIN)/hadolint serving/Dockerfile web/Dockerfile
	@echo "lint: clean"

audit: $(READY) $(AUDIT)/.ready licences sbom ## what a reviewer asks: infra/ by policy, secrets, licences, a list of all parts
	@LOG_LEVEL=ERROR $(AUDIT)/bin/checkov --directory infra --framework terraform --skip-download --quiet --compact
	@$(BIN)/python .ci/terraform_schema.py $(AUDIT)/lib/python3.11/site-packages
	@$(BIN)/python .ci/find_secrets.py
	@echo "audit: clean"

licences: $(READY) $(AUDIT)/.ready ## what is installed under which licence: runs/licences.md (.ci/licences.yaml is the policy)
	@mkdir -p runs
	@$(AUDIT)/bin/pip-licenses --python=$(BIN)/python --with-system --from=mixed --format=json \
		| $(BIN)/python .ci/licences.py runs/licences.md

sbom: $(READY) $(AUDIT)/.ready ## all that is installed, as CycloneDX: runs/sbom.json
	@mkdir -p runs
	@$(AUDIT)/bin/cyclonedx-py environment $(VENV) --output-reproducible --of JSON -o runs/sbom.json
	@echo "sbom: runs/sbom.json"

docs: $(READY) ## the documentation as a site: site/index.html (ARGS=serve to see it change)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict) # not --quiet: then nothing is strict

bench: $(READY) ## the figures in the README: compose, the describer, 200 tracks measured
	@$(BIN)/python bench/compose.py
	@$(BIN)/python bench/describer.py
	-@$(BIN)/melodify evaluate tracks # a missed bar is a figure, too
	-@$(BIN)/melodify evaluate alignment

bench-musicgen: $(READY) ## MusicGen beside transformers and OpenVINO, and its endpoint under load (an hour, 20 GB)
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python bench/musicgen.py
	@checkpoint=$$(mktemp -d); trap 'rm -rf "$$checkpoint"' EXIT; \
	$(BIN)/python -c 'import sys, pathlib; from melodify_lib.music.musicgen.untrained import write_untrained; \
		write_untrained(pathlib.Path(sys.argv[1]), "small")' "$$checkpoint"; \
	$(BIN)/python bench/endpoint.py --checkpoint "$$checkpoint"

bench-web: $(READY) ## the web application under load: 50 visitors
	@$(BIN)/pip install --quiet --constraint constraints.txt locust
	@$(BIN)/python bench/web.py

bench-taggers: $(READY) $(TAGGERS)/.ready ## does an independent tagger hear the genres of the music?
	@$(BIN)/python bench/taggers.py $(TAGGERS)/bin/python $(ARGS)

dataset: $(READY) ## rebuild the dataset that ships, and the describer that is tuned on it, if the gate lets it pass
	@$(BIN)/melodify dataset build --out data/generate_jsonl/output
	@$(BIN)/melodify dataset check --source data/generate_jsonl data/generate_jsonl/output/*.jsonl
	@$(BIN)/melodify tune data/generate_jsonl/output/train.jsonl --out runs/tuned \
		--validation data/generate_jsonl/output/validation.jsonl
	@$(BIN)/melodify evaluate describer --describer-model runs/tuned --promote melodify_lib/describe/model

cloud-local: $(READY) ## a cloud on this machine: OpenAI, Vertex AI and Cloud Storage for the real clients
	@PYTHONPATH=tests $(BIN)/python -m emulators

notebooks-cloud: $(READY) ## all notebooks in the gcp profile, against that cloud; nothing is paid
	@PYTHONPATH=tests $(BIN)/python -m emulators $(BIN)/melodify notebooks run --profile gcp $(CLOUD)$(keeping)
CLOUD := -p teacher=openai -p rate=6000 -p budget=25

notebooks-gcp: $(READY) ## all notebooks on the real cloud: paid (BUDGET=25 dollars for the teacher, and for tuning)
	@$(BIN)/melodify notebooks run --profile gcp --timeout 14400 -p teacher=openai -p budget=$(BUDGET)$(keeping)
BUDGET = $(error say BUDGET=…, the dollars that the teacher, and tuning, may cost)

cloud-clean: $(READY) ## delete what has expired in the cloud, or what RUN=… made: said first, endpoints before models
	@$(BIN)/melodify cloud clean --dry-run $(if $(RUN),--run "$(RUN)")
	@$(BIN)/melodify cloud clean --yes $(if $(RUN),--run "$(RUN)")

images: ## the images, by buildx, into runs/images (REGISTRY=… has their cache; IMAGES="web" for one)
	@.ci/images build $(IMAGES)

images-scan: ## what is known to be bad in them
	@.ci/images scan $(IMAGES)

images-push: ## push what was scanned to REGISTRY=…, by digest
	@.ci/images push $(IMAGES)

build-local: $(READY) ## steps of the builds on this machine, against that cloud (STEPS="lint template")
	@PYTHONPATH=tests $(BIN)/python -m emulators $(BIN)/python .ci/build_local.py $(STEPS)
STEPS := template cloudbuild.release.yaml release settle template

constraints: ## resolve versions that fit pyproject.toml anew into constraints.txt (TORCH=2.13.0)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; \
	"$$folder/bin/pip" install torch==$(TORCH) '.[notebooks,pipelines,cloud,musicgen,serving,web,evaluate,bench,docs,dev]'; \
	{ echo "# Exact versions that CI passed on; made by 'make constraints'."; \
	  "$$folder/bin/pip" freeze --exclude melodify | sed -E 's/\+cpu$$//'; } > constraints.txt.new; \
	mv constraints.txt.new constraints.txt
TORCH ?= 2.13.0

clean: ## remove the environment and caches; songs in runs/ stay
	@rm -rf $(VENV) $(AUDIT) $(TAGGERS) site .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Kept out of sight of `make help`: set-up, done again only when what it installs has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and f"Melodify needs Python 3.11; $(PYTHON) is {sys.version.split()[0]}. Install it, or say make PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (once; 2.3 GB, some minutes) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --constraint constraints.txt --editable '.[notebooks,pipelines,cloud,musicgen,serving,web,docs,dev]'
	@$(BIN)/python -m compileall -q melodify_lib pipelines serving web
	@touch $@

$(AUDIT)/.ready: .ci/audit.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --requirement .ci/audit.txt
	@$(AUDIT)/bin/pip install --quiet --no-deps $(SCHEMA)
	@touch $@

$(TAGGERS)/.ready: bench/taggers.txt
	@$(PYTHON) -m venv $(TAGGERS)
	@$(TAGGERS)/bin/pip install --quiet --requirement bench/taggers.txt
	@$(TAGGERS)/bin/pip install --quiet --no-deps musicnn==0.1.0
	@touch $@
