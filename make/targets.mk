# The targets people call; how things are compiled and linked stands in ../Makefile.
RUN_ARGS ?= serve
ONLY ?=
VARIANT_MAKE = $(MAKE) --no-print-directory
.PHONY: run tests check test test-all test-builds bench precision ablation what-if fuzz coverage format nodes check-flags install static docker fresh clean help
run: all ## build, and start the daemon with the built-in model (RUN_ARGS=...)
	$(B)/quantd $(RUN_ARGS)

tests: $(TESTS) $(REPLAYS) ## build the test programs, run none

check: all ## format, layering, headers, sizes, symbols, words, links, options
	python3 tests/run.py --checks $(addprefix --only ,$(ONLY))

test: all tests ## run every test of this build (SANITIZE=..., ONLY=part-of-a-name)
	python3 tests/run.py --build $(B) $(addprefix --only ,$(ONLY))

test-builds: all tests
	$(VARIANT_MAKE) SANITIZE=address,undefined all tests
	$(VARIANT_MAKE) SANITIZE=thread all tests
	$(VARIANT_MAKE) CC=clang-14 all tests

test-all: test-builds ## the checks, and every test, plain and under the sanitizers; builds with clang as well
	python3 tests/run.py --checks --build $(BUILD) --build $(BUILD)/address-undefined --build $(BUILD)/thread \
	    $(addprefix --only ,$(ONLY))

# One program that runs a model in quantd's engine or in ONNX Runtime, driven through a pipe by tests/bench/models.py; not
# relocated, so that a profile finds its functions.
RUNNER := $(B)/tests/bench/runner
$(RUNNER): $(call obj,$(wildcard tests/bench/runner*.c)) $(ENGINE_LIB) $(B)/.flags
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) -no-pie -o $@ $(filter %.o,$^) $(ENGINE_LIB) $(ENGINE_LIBS) -ldl $(LDFLAGS)

.PHONY: runner
runner: $(RUNNER)

# BENCH_MODELS: a folder of models with their data; LITERT_MODELS: a folder of MODEL_dynamic.tflite for that peer.
BENCH_MODELS ?= $(ZOO)
LITERT_MODELS ?= $(wildcard $(BENCH_MODELS)/peers)
BENCH_VENV := build/bench/venv
bench: all $(BENCHES) $(RUNNER) ## measure kernels and models beside their peers (BENCH_MODELS=folder), write docs/BENCHMARKS.md
	python3 tests/bench/environment.py $(BENCH_VENV)
	$(BENCH_VENV)/bin/python tests/bench/models.py --build $(B) --full build/bench/results.json $(addprefix --models ,$(BENCH_MODELS)) \
	    $(addprefix --litert ,$(LITERT_MODELS))
	$(BENCH_VENV)/bin/python tests/bench/report.py --build $(B) build/bench/results.json

# The same folder, served over HTTP: automatic mixed precision (TARGET_COSINE), and what each part of the quantization gives.
TARGET_COSINE ?= 0.999
precision: all ## serve the models of BENCH_MODELS with a target: when it is met, how closely, at what cost
	python3 tests/bench/precision.py --build $(B) --models $(BENCH_MODELS) --target $(TARGET_COSINE) --check --write docs/QUANTIZATION.md --json $(B)/precision.json $(addprefix --only ,$(ONLY))
ablation: all ## what guard, rows, smoothing, corrections and mixed precision give (BENCH_MODELS=folder), into docs/QUANTIZATION.md
	python3 tests/bench/ablation.py --build $(B) --models $(BENCH_MODELS) --write docs/QUANTIZATION.md $(addprefix --only ,$(ONLY))
what-if: ## what other weights and scales would give convolutional networks (BENCH_MODELS=folder), into docs/QUANTIZATION.md
	python3 tests/bench/what_if.py --models $(BENCH_MODELS) --write docs/QUANTIZATION.md $(addprefix --only ,$(ONLY))

# Fuzzing: new inputs go to build/fuzz/corpus; those worth keeping are merged into tests/fuzz/corpus by hand.
fuzz: ## fuzz each target (or TARGET=name) SECONDS=300 each, with clang-14, ASan and UBSan
ifeq ($(FUZZER),)
	$(VARIANT_MAKE) FUZZER=1 CC=clang-14 fuzz SECONDS=$(SECONDS) TARGET=$(TARGET)
else
fuzz: $(if $(TARGET),$(B)/tests/fuzz/fuzz_$(patsubst fuzz_%,%,$(TARGET)),$(REPLAYS))
	@for f in $^; do n=$${f##*/fuzz_}; mkdir -p $(B)/corpus/$$n $(B)/findings; echo "== $$n, $(SECONDS) s"; \
	    $$f -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	        -artifact_prefix=$(B)/findings/$$n- $(B)/corpus/$$n $$(ls -d tests/fuzz/corpus/$$n 2>/dev/null) || exit 1; done
endif

coverage: ## line coverage of all tests; needs gcovr; report in build/coverage/report
	$(VARIANT_MAKE) COVERAGE=1 all tests
	find $(BUILD)/coverage -name '*.gcda' -delete
	python3 tests/run.py --build $(BUILD)/coverage
	mkdir -p $(BUILD)/coverage/report
	gcovr -r . --gcov-ignore-parse-errors --object-directory $(BUILD)/coverage -e tests/ -e $(BUILD)/ --print-summary \
	    --html-details $(BUILD)/coverage/report/index.html

format: ## rewrite the C files as clang-format 14 wants them
	clang-format-14 -i --style=file $(shell find base config engine server clients tests -name '*.[ch]' 2>/dev/null)

PYTHON = $(or $(wildcard build/venv/bin/python3),python3)
nodes: ## make the standard's node tests for our operators, in build/nodes
	$(PYTHON) tests/nodes/make_nodes.py build/nodes

check-flags: # what tests/check/headers.py compiles with
	@echo 'CC=$(CC)'
	@echo 'CFLAGS=$(LANGUAGE) -O2 $(WARNINGS) $(SERVER_CFLAGS) $(CMOCKA_CFLAGS)'
	@$(foreach isa,$(ISAS),echo '$(isa)=$(ISA_CFLAGS_$(isa))';)

# The public header and all it includes, found by the compiler, installed under one folder that is put on -I.
PUBLIC_HEADERS = $(shell $(CC) $(LANGUAGE) -MM engine/engine.h 2>/dev/null | tr ' \\' '\n\n' | grep -E '\.(h|def)$$' | sort -u)
install: all ## into $(DESTDIR)$(PREFIX): programs, libraries, headers, pkg-config files, systemd unit
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/lib/systemd/system \
	    $(DESTDIR)$(PREFIX)/include/quantd
	install -m 755 $(wildcard $(B)/quantd $(B)/quantctl) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(ENGINE_LIB) $(CLIENT_LIB) $(DESTDIR)$(PREFIX)/lib
	for h in $(PUBLIC_HEADERS); do install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/quantd/$$h || exit 1; done
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' make/quantd-engine.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/quantd-engine.pc
	sed -e 's|@PREFIX@|$(PREFIX)|' docker/systemd/quantd.service.in > $(DESTDIR)$(PREFIX)/lib/systemd/system/quantd.service
ifneq ($(CLIENT_SRC),)
	install -m 644 $(B)/libquantd-client.so $(DESTDIR)$(PREFIX)/lib/libquantd-client.so.0
	ln -sf libquantd-client.so.0 $(DESTDIR)$(PREFIX)/lib/libquantd-client.so
	for h in $(wildcard clients/c/*.h); do install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/quantd/$$h || exit 1; done
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' make/quantd-client.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/quantd-client.pc
endif

static: ## build/static/quantd: one file that needs no library, for FROM scratch (no TLS)
	$(VARIANT_MAKE) STATIC=1 $(BUILD)/static/quantd
	strip -o $(BUILD)/static/quantd-stripped $(BUILD)/static/quantd

docker: ## the container image, by docker or buildah
	sh docker/build.sh

fresh: ## both commands of quickstart.sh in a fresh Debian 12 (root and mmdebstrap or debootstrap needed)
	sh tests/fresh/run.sh

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile make/*.mk | sort | expand -t 14
