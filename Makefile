# make env    everything that runs the node, in .venv and install/
# make demo   the node on a camera stream; CLIP=video.mp4 and MODEL=folder for your own
# make test   every test
# make test-jazzy  the node's main tests on Jazzy's wheels
# make docs   the documentation site, in out/docs
# make check  ruff: errors, style, format; mypy: types

SHELL := /bin/bash
PYTHON ?= python3
CLIP ?=
MODEL ?=
SETUP := source scripts/setup.sh

.PHONY: env demo test test-jazzy check docs clean

env:
	@$(PYTHON) scripts/make_env.py

demo: env
	@$(SETUP) && install/yolact_ros/lib/yolact_ros/demo \
		$(if $(CLIP),--clip "$(CLIP)") $(if $(MODEL),--model "$(MODEL)")

test:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && pytest $(PYTEST_ARGS)

# Part of the node's tests; JAZZY_ARGS=test/ros for all that need no torch.
JAZZY_ARGS ?= test/ros/test_parameters.py test/ros/test_qos.py test/ros/test_graph.py \
	test/ros/test_services.py

test-jazzy:
	@$(PYTHON) scripts/make_env.py --distro jazzy --use ros-test
	@export YOLACT_DISTRO=jazzy FASTRTPS_DEFAULT_PROFILES_FILE=$(CURDIR)/config/fastdds_shm.xml && \
		$(SETUP) && pytest $(JAZZY_ARGS)

check:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && ruff check . && ruff format --check . && mypy yolact_ros

docs:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && python -m sphinx -q -W --keep-going -b html docs out/docs
	@echo "out/docs/index.html"

clean:
	rm -rf .venv .jazzy build install log out
