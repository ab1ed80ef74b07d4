# quantd's build: one file for the daemon, its library, clients and tests. `make help` lists the targets.
# Sources are found by folder, so a new file needs no line here. Everything made goes to build/ (a variant to
# build/<variant>/; BUILD=folder moves it all). Compiler, flags and revision are remembered: what depends on a changed one
# is rebuilt.

VERSION := $(shell sed -n 's/^#define QD_VERSION "\(.*\)".*/\1/p' base/version.h)
CC := gcc
PREFIX ?= /usr/local
DESTDIR ?=
SANITIZE ?=
DEBUG ?=
STATIC ?=
FUZZER ?=
COVERAGE ?=
WERROR ?= -Werror
V ?=
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)
SECONDS ?= 300
TARGET ?=
AR := ar
PKG_CONFIG ?= pkg-config
MACHINE := $(shell uname -m)
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

# ---------------------------------------------------------------- variant: which folder, which flags
comma := ,
VARIANT := $(subst $(comma),-,$(SANITIZE))$(if $(DEBUG),-debug)$(if $(STATIC),-static)$(if $(FUZZER),-fuzz)$(if \
           $(COVERAGE),-coverage)$(if $(findstring clang,$(CC)),-clang)
VARIANT := $(patsubst -%,%,$(VARIANT))
BUILD ?= build
B := $(BUILD)$(if $(VARIANT),/$(VARIANT))

cc-option = $(shell $(CC) -Werror $(1) -x c -c /dev/null -o /dev/null 2>/dev/null && echo '$(1)')

WARNINGS := -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Wvla -Walloca -Wstrict-prototypes \
            -Wmissing-prototypes -Wpointer-arith $(WERROR)
OPTIMIZE := $(if $(DEBUG)$(COVERAGE),-Og -g3,-O2 -g)
# Reports of a sanitizer must not be hidden by the hardening, and _FORTIFY_SOURCE would bypass its interceptors.
HARDEN := -fstack-protector-strong $(if $(filter x86_64,$(MACHINE)),-fcf-protection) -fPIE
ifeq ($(SANITIZE)$(FUZZER),)
HARDEN += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-clash-protection
INIT := $(call cc-option,-ftrivial-auto-var-init=zero)
endif
SAN := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
SAN += $(if $(FUZZER),-fsanitize=fuzzer-no-link$(comma)address$(comma)undefined -fno-sanitize-recover=all \
       -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
SAN += $(if $(COVERAGE),--coverage -fprofile-update=atomic)
LANGUAGE := -std=c11 -D_GNU_SOURCE -ffp-contract=off -I. -ffile-prefix-map=$(CURDIR)=.
BASE_CFLAGS := $(LANGUAGE) $(OPTIMIZE) $(WARNINGS) $(HARDEN) $(SAN)
LINK := -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $(if $(STATIC),-static-pie) $(SAN)

# Kernels: with the vectorizer or the second scheduler on, gcc spills the accumulators (docs/BENCHMARKS.md).
KERNEL_CFLAGS := -fno-tree-vectorize $(call cc-option,-fno-schedule-insns2)
ISA_x86_64 := scalar avx2 avx512vnni amx
ISA_aarch64 := scalar neon
ISAS := $(or $(ISA_$(MACHINE)),scalar)
ISA_CFLAGS_avx2 := -mavx2 -mfma -mf16c
ISA_CFLAGS_avx512vnni := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
ISA_CFLAGS_amx := $(ISA_CFLAGS_avx512vnni) -mamx-tile -mamx-int8

# ---------------------------------------------------------------- libraries from the system
pc-cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null)
pc-libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
SERVER_CFLAGS := $(call pc-cflags,libmicrohttpd libuv jansson)
SERVER_LIBS := $(if $(STATIC),-lmicrohttpd -luv_a -ljansson -lpthread -ldl,$(call pc-libs,libmicrohttpd libuv jansson))
JANSSON_CFLAGS := $(call pc-cflags,jansson)
CLIENT_LIBS = $(call pc-libs,jansson)
CMOCKA_CFLAGS := $(call pc-cflags,cmocka)
CMOCKA_LIBS = $(call pc-libs,cmocka)
ENGINE_LIBS := -lm -lpthread

# ---------------------------------------------------------------- sources
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
ENGINE_SRC := $(wildcard base/*.c engine/*.c engine/*/*.c $(foreach isa,$(ISAS),engine/kernels/$(isa)/*.c))
SERVER_SRC := $(filter-out server/main.c,$(wildcard config/*.c server/*.c server/*/*.c))
CLIENT_EXAMPLE := $(wildcard clients/c/example.c)
CLIENT_SRC := $(filter-out $(CLIENT_EXAMPLE),$(wildcard clients/c/*.c))
CLI_SRC := $(wildcard clients/cli/*.c)
BUILTIN := $(patsubst server/builtin/%.onnx,$(BUILD)/gen/builtin_%.c,$(wildcard server/builtin/*.onnx)) $(BUILD)/gen/openapi.c
SERVER_OBJ := $(call obj,$(SERVER_SRC)) $(patsubst $(BUILD)/gen/%.c,$(B)/obj/gen/%.o,$(BUILTIN))
ENGINE_LIB := $(B)/libquantd-engine.a
SERVER_LIB := $(B)/internal/server.a
CLIENT_LIB := $(if $(CLIENT_SRC),$(B)/libquantd-client.a)
ALL_SRC := $(ENGINE_SRC) $(SERVER_SRC) $(wildcard server/main.c) $(CLIENT_SRC) $(CLI_SRC) $(CLIENT_EXAMPLE)

TEST_SRC := $(wildcard tests/unit/test_*.c tests/kernels/test_*.c)
TEST_HELP_SRC := $(filter-out $(TEST_SRC),$(wildcard tests/unit/*.c tests/kernels/*.c))
TESTS := $(patsubst %.c,$(B)/%,$(TEST_SRC))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
REPLAYS := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))
BENCHES := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/bench_*.c))

.PHONY: all
all: $(if $(wildcard server/main.c),$(B)/quantd) $(ENGINE_LIB) $(CLIENT_LIB) $(if $(CLIENT_SRC),$(B)/libquantd-client.so) \
     $(if $(CLI_SRC),$(B)/quantctl) $(if $(CLIENT_EXAMPLE),$(B)/examples/client_example)

.PHONY: objects
objects: $(call obj,$(ALL_SRC)) ## compile everything, link nothing

# ---------------------------------------------------------------- compile
# A file holding the command; it changes only when the command does, and everything made depends on it.
define remember
$(1): FORCE
	@mkdir -p $$(@D)
	@printf '%s\n' '$(subst ','\'',$(2))' | cmp -s - $$@ || printf '%s\n' '$(subst ','\'',$(2))' > $$@
endef
FORCE:
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell \
            test -z "$$(git status --porcelain -uno 2>/dev/null)" || echo -dirty)
$(eval $(call remember,$(B)/.flags,$(CC) $(shell $(CC) -dumpversion) $(BASE_CFLAGS) $(INIT) $(KERNEL_CFLAGS) $(LINK) $(CFLAGS)))
$(eval $(call remember,$(B)/.revision,$(VERSION) $(REVISION)))
$(eval $(call remember,$(B)/.sources,$(ALL_SRC) $(TEST_HELP_SRC)))

FILE_CFLAGS = $(INIT)
$(B)/obj/engine/kernels/%.o: FILE_CFLAGS = $(KERNEL_CFLAGS) $(ISA_CFLAGS_$(notdir $(patsubst %/,%,$(dir $*))))
$(B)/obj/server/%.o $(B)/obj/tests/%.o: FILE_CFLAGS = $(INIT) $(SERVER_CFLAGS) $(CMOCKA_CFLAGS)
$(B)/obj/config/%.o $(B)/obj/clients/%.o: FILE_CFLAGS = $(INIT) $(JANSSON_CFLAGS)
$(B)/obj/clients/c/%.o: FILE_CFLAGS = $(INIT) $(JANSSON_CFLAGS) -fPIC
# Only the files that print the revision are rebuilt after a commit.
REVISION_OBJ := $(call obj,$(if $(ALL_SRC),$(shell grep -l -E 'QD_(REVISION|VERSION|BUILD_FLAGS)\b' $(ALL_SRC))))
$(REVISION_OBJ): $(B)/.revision
$(REVISION_OBJ): DEFINES = -DQD_VERSION='"$(VERSION)"' -DQD_REVISION='"$(REVISION)"' \
                           -DQD_BUILD_FLAGS='"$(CC) $(strip $(OPTIMIZE) $(HARDEN) $(SAN))"'

$(B)/obj/%.o: %.c $(B)/.flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE_CFLAGS) $(FILE_CFLAGS) $(DEFINES) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/gen/%.o: $(BUILD)/gen/%.c $(B)/.flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE_CFLAGS) -MMD -MP -c $< -o $@

# The built-in models, as bytes in C: only od and awk are needed.
$(BUILD)/gen/builtin_%.c: server/builtin/%.onnx make/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED)
	$(Q)sh make/embed.sh qd_builtin_$*_onnx $< > $@

$(BUILD)/gen/openapi.c: docs/openapi.yaml make/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED)
	$(Q)sh make/embed.sh qd_openapi_yaml $< > $@

# ---------------------------------------------------------------- link
define archive
@mkdir -p $(@D)
$(call say,AR)
$(Q)rm -f $@
$(Q)$(AR) rcsD $@ $(filter %.o,$^)
endef
$(ENGINE_LIB): $(call obj,$(ENGINE_SRC)) $(B)/.sources
	$(archive)
$(SERVER_LIB): $(SERVER_OBJ) $(B)/.sources
	$(archive)
$(B)/libquantd-client.a: $(call obj,$(CLIENT_SRC)) $(B)/.sources
	$(archive)
$(B)/libquantd-client.so: $(call obj,$(CLIENT_SRC))
	$(call say,LINK)
	$(Q)$(CC) -shared -Wl,-soname,libquantd-client.so.0 -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $(SAN) -o $@ $^ $(CLIENT_LIBS)

STATIC_OBJ := $(if $(STATIC),$(B)/obj/docker/static/gnutls_stub.o)
$(B)/quantd: $(B)/obj/server/main.o $(SERVER_LIB) $(ENGINE_LIB) $(STATIC_OBJ) $(B)/.flags
	$(call say,LINK)
	$(Q)$(CC) $(LINK) -o $@ $(filter %.o,$<) $(SERVER_LIB) $(ENGINE_LIB) $(STATIC_OBJ) $(SERVER_LIBS) $(ENGINE_LIBS) $(LDFLAGS)
$(B)/quantctl: $(call obj,$(CLI_SRC)) $(CLIENT_LIB) $(B)/.flags
	$(call say,LINK)
	$(Q)$(CC) $(LINK) -o $@ $(filter %.o,$^) $(CLIENT_LIB) $(CLIENT_LIBS) -lm $(LDFLAGS)
$(B)/examples/client_example: $(call obj,$(CLIENT_EXAMPLE)) $(CLIENT_LIB) $(B)/.flags
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) -o $@ $(filter %.o,$^) $(CLIENT_LIB) $(CLIENT_LIBS) $(LDFLAGS)

# Tests: one program per file. Helper files beside them (no test_ in front) go into an archive, linked where used.
TEST_LIBS = $(SERVER_LIB) $(CLIENT_LIB) $(ENGINE_LIB)
$(B)/internal/testhelp.a: $(call obj,$(TEST_HELP_SRC)) $(B)/.sources
	$(archive)
$(B)/tests/unit/% $(B)/tests/kernels/%: EXTRA_LIBS = $(CMOCKA_LIBS)
$(TESTS) $(BENCHES): $(B)/tests/%: $(B)/obj/tests/%.o $(B)/internal/testhelp.a $(SERVER_LIB) $(CLIENT_LIB) $(ENGINE_LIB) $(B)/.flags
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) -o $@ $< $(B)/internal/testhelp.a $(TEST_LIBS) $(EXTRA_LIBS) $(SERVER_LIBS) $(ENGINE_LIBS) $(LDFLAGS)
ifneq ($(FUZZER),)
$(B)/tests/fuzz/fuzz_model $(B)/tests/fuzz/fuzz_onnx: $(call obj,tests/fuzz/mutate.c tests/fuzz/mutate_hooks.c)
endif
$(REPLAYS): $(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $(if $(FUZZER),,$(call obj,tests/fuzz/replay.c tests/fuzz/mutate.c)) $(SERVER_LIB) $(ENGINE_LIB) $(B)/.flags
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) $(if $(FUZZER),-fsanitize=fuzzer) -o $@ $(filter %.o,$^) $(SERVER_LIB) $(ENGINE_LIB) $(SERVER_LIBS) $(ENGINE_LIBS) $(LDFLAGS)

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
include make/targets.mk
