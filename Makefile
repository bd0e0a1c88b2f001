# The Python that has evalkit and its development tools.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.PHONY: help completions

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

completions: ## Write completions/ anew, after commands or options have changed
	$(PYTHON) completions/generate.py
