# make demo   install what is missing, build, tune a small real model, show the result
# make test   install what is missing, build, run the tests
BUILD ?= build/release
JOBS ?= $(shell nproc)
# perf is measured by hand; reference-slow needs peers that take long to build; gpu tests skip with a reason where there is none.
TEST_LABELS = ^(unit|integration|e2e|reference|gpu)$$

.PHONY: deps configure build test demo clean format
deps:
	docker/install-deps.sh
configure: deps
	cmake --preset release -B $(BUILD)
build: configure
	cmake --build $(BUILD) -j $(JOBS)
test: build
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) -L '$(TEST_LABELS)'
	@sed -n '/^skipped: /p' $(BUILD)/Testing/Temporary/LastTest.log  # ctest itself does not print why
demo: configure
	cmake --build $(BUILD) -j $(JOBS) --target finetuned finetune finetune-worker
	BUILD=$(BUILD) docker/demo.sh
clean:
	rm -rf build demo-output
format:
	git ls-files '*.cc' '*.h' '*.cu' | xargs clang-format -i
