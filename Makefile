# make env    set up everything that the node requires, in .venv and install/
# make demo   run the node on a video; set CLIP=video.mp4 and MODEL=folder for your own
# make test   run all tests
# make test-jazzy  run the node's main tests on the Jazzy wheels
# make benchmark  measure every model on every library and precision; JSON in out/benchmark
# make docs   build the documentation site in out/docs
# make check  run ruff (errors, style, format) and mypy (types)

SHELL := /bin/bash
PYTHON ?= python3
CLIP ?=
MODEL ?=
SETUP := source scripts/setup.sh

.PHONY: env demo test test-jazzy check benchmark docs clean

env:
	@$(PYTHON) scripts/make_env.py

demo: env
	@$(SETUP) && install/yolact_ros/lib/yolact_ros/demo \
		$(if $(CLIP),--clip "$(CLIP)") $(if $(MODEL),--model "$(MODEL)")

test:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && pytest $(PYTEST_ARGS)

# The node's main tests; set JAZZY_ARGS=test/ros for all that do not require torch.
JAZZY_ARGS ?= test/ros/test_parameters.py test/ros/test_qos.py test/ros/test_graph.py \
	test/ros/test_services.py test/ros/test_lifecycle.py test/ros/test_node.py

test-jazzy:
	@$(PYTHON) scripts/make_env.py --distro jazzy --use ros-test
	@export YOLACT_DISTRO=jazzy FASTRTPS_DEFAULT_PROFILES_FILE=$(CURDIR)/config/fastdds_shm.xml && \
		$(SETUP) && pytest $(JAZZY_ARGS)

check:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && ruff check . && ruff format --check . && mypy yolact_ros

# Set MODELS="tools out/mine" for other models, BENCHMARK_ARGS for flags of `yolact benchmark`,
# and RELEASE=0.1.0 to write the row of a version into docs/research/speed.md.
MODELS ?= tabletop tools everyday
BENCHMARK_ARGS ?= --frames 50
RELEASE ?=

benchmark:
	@$(PYTHON) scripts/make_env.py --use test
	@mkdir -p out/benchmark
	@$(SETUP) && for model in $(MODELS); do \
		yolact benchmark $$model --compare $(BENCHMARK_ARGS) \
			--json out/benchmark/$$(basename $$model).json || exit 1; done
	@$(SETUP) && yolact benchmark --postprocess yolact_resnet50 \
		--json out/benchmark/postprocess.json
	@$(SETUP) && python scripts/speed_table.py out/benchmark/*.json \
		$(if $(RELEASE),--write docs/research/speed.md --release $(RELEASE))

docs:
	@$(PYTHON) scripts/make_env.py --use test
	@$(SETUP) && python -m sphinx -q -W --keep-going -b html docs out/docs
	@echo "out/docs/index.html"

clean:
	rm -rf .venv .jazzy build install log out
