# make demo · make test · make check · make bench-overhead
# Every target does its own set-up; what is set up already costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST_ARGS ?=
INPUT ?=
OUTPUT ?= demo-output
DIR ?= .voxelmill
SCALE ?=
NAME ?=
TAG ?= dev
BASE ?=
ENGINE ?=
TORCH ?= cuda
WEIGHTS ?=
STACK = PYTHONPATH=tools $(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m stack --dir "$(DIR)"

SERVER_BENCHES = bench-idle bench-bus bench-ingest bench-replay bench-scale bench-gateway bench-viewer
PEER_BENCHES = bench-volumes bench-read bench-thumbnails bench-mesh
MODEL_BENCHES = bench-segment bench-soak

.PHONY: help setup setup-dev setup-totalsegmentator setup-peers $(SERVER_BENCHES) $(PEER_BENCHES) $(MODEL_BENCHES) demo page up down ps logs test test-ceph check format images images-totalsegmentator images-check lock bench bench-% faults mutants contact-sheet clean

help:  ## Show this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup:  ## Install what running needs into .venv
	@tools/setup run

setup-dev:  ## Install what developing needs into .venv
	@tools/setup dev

setup-totalsegmentator: setup  ## Install what the model totalsegmentator needs, 1.7 GB [VOXELMILL_TORCH=cpu|cuda]
	@tools/setup totalsegmentator

setup-peers: setup-dev
	@tools/setup peers

page:  ## Build the gateway's page (Node.js 20.19 or newer)
	@tools/setup page

demo: setup page  ## Run the main job on a phantom chest CT, or on INPUT=path
	@if [ -n "$(INPUT)" ]; then \
		$(BIN)/voxelmill run "$(INPUT)" --organ all --output "$(OUTPUT)"; \
	else \
		$(BIN)/voxelmill demo --output "$(OUTPUT)"; \
	fi

up:  ## Start the real servers and every service here [SCALE="mesh=2"] [DIR=.voxelmill]
	@tools/setup stack
	@PYTHONPATH=tools $(BIN)/python -m stack --dir "$(DIR)" --scale "$(SCALE)" up

down:  ## End them and wait until they are gone; the data stays
	@$(STACK) down

ps:  ## Show what runs
	@$(STACK) ps

logs:  ## Follow the logs, or one [NAME=mesh-1]
	@$(STACK) logs --name "$(NAME)"

test: setup-dev  ## Run the whole suite, with the real servers that it starts privately
	@tools/setup totalsegmentator --if-possible
	@tools/setup servers
	@tools/setup page
	@$(BIN)/python -m pytest $(if $(PYTEST_ARGS),$(PYTEST_ARGS),-q -n 4 --dist worksteal --durations=30 --cov --cov-report=term:skip-covered --cov-fail-under=90)

test-ceph: setup-dev  ## Run the tests against a private Ceph (0.5 GB of Debian packages)
	@tools/setup servers
	@tools/setup ceph
	@$(BIN)/python -m pytest tests/ceph -q $(PYTEST_ARGS)

faults: setup-dev  ## Apply every fault to real processes, 10 times each, and write docs/faults.md [ARGS="--fault NAME --runs N --seed S"]
	@tools/setup servers
	@PYTHONPATH=tests:tools:bench $(BIN)/python -m faults $(ARGS)

check: setup-dev  ## Format, lint, types, imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --no-error-summary shared/src services/*/src cli/src tools/stack tools/containers tools/mutants
	@$(BIN)/lint-imports --no-cache

format: setup-dev  ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

images: page  ## Build every service's image [TAG=dev] [BASE=image|debian] [ENGINE=docker|podman|buildah]
	@tools/images --tag "$(TAG)" --base "$(BASE)" --engine "$(ENGINE)"

images-totalsegmentator: page  ## Build segment's image with TotalSegmentator [TORCH=cuda|cpu], else as images
	@tools/images --totalsegmentator "$(TORCH)" --tag "$(TAG)" --base "$(BASE)" --engine "$(ENGINE)"

images-check: setup-dev  ## Run a series through the images, on real servers (needs root and buildah) [TAG=dev] [WEIGHTS=tests/weights TORCH=cpu]
	@tools/setup stack
	@tools/images --check --tag "$(TAG)" $(if $(WEIGHTS),--totalsegmentator "$(TORCH)" --weights "$(WEIGHTS)")

lock:  ## Write the lock files anew (needs uv)
	@tools/lock --upgrade

bench: $(addprefix bench-,overhead idle bus ingest replay scale volumes read headers thumbnails mesh segment soak gateway viewer)  ## Run every benchmark, one after the other

$(PEER_BENCHES): bench-%: setup-peers  # beside other programs, which have an environment of their own
	@$(BIN)/python bench/$*.py

bench-ingest bench-gateway: setup-peers  # Orthanc
bench-viewer: page
$(SERVER_BENCHES): bench-%: setup-dev
	@tools/setup servers
	@$(BIN)/python bench/$*.py

$(MODEL_BENCHES): bench-%: setup-dev  # ARGS=--real-size: networks of the real size, on a GPU
	@tools/setup totalsegmentator
	@$(BIN)/python bench/$*.py $(ARGS)

bench-%: setup-dev
	@$(BIN)/python bench/$*.py

mutants: setup-dev  ## Put 5,000 mutated files through ingest and thumbnail, 300 through all services [ARGS="--seed S --count N"]
	@PYTHONPATH=tools $(BIN)/python -m mutants $(ARGS)

contact-sheet: setup-dev  ## Draw a picture of every series of the test data into one PNG [OUTPUT=sheet.png]
	@$(BIN)/python bench/contact_sheet.py $(if $(filter-out demo-output,$(OUTPUT)),--output "$(OUTPUT)")

clean:  ## Remove what set-up and runs have made
	rm -rf .venv .venv-peers .servers demo-output
