# SPDX-License-Identifier: Apache-2.0
# Culvert's one Makefile. Targets for people: deps, all, demo, check, bench, lint, install.
#   V=1 shows commands; SAN=1 builds with address, undefined and leak sanitizers into build-san/.

V       ?= 0
SAN     ?= 0
CC      ?= gcc
CLANG   ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
PREFIX  ?= /usr/local
DESTDIR ?=
PKG     ?= pkg-config

B       := build$(if $(filter 1,$(SAN)),-san)
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

comma   := ,
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
           -Wno-unused-parameter -Wno-missing-field-initializers -Wno-format-truncation \
           $(if $(findstring clang,$(CC)),-Wno-unknown-warning-option)
OPT     := $(if $(filter 1,$(SAN)),-O1 -fno-omit-frame-pointer -fsanitize=address$(comma)undefined \
           -fno-sanitize-recover=undefined,-O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -ffunction-sections)
CPPFLAGS += -D_GNU_SOURCE -Iuserspace -Iheaders -I$(B)/gen
CFLAGS   ?=
CFLAGS_  = -std=gnu11 -g $(OPT) $(WARN) -MMD -MP -pthread $(CFLAGS)
LDFLAGS_ = -g $(OPT) -pthread -Wl,--as-needed $(if $(filter 1,$(SAN)),,-Wl$(comma)--gc-sections -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now) $(LDFLAGS)

# --- libraries, by the folder that may use them ------------------------------------------------
pc      = $(shell $(PKG) --$(1) $(2) 2>/dev/null)
EVENT    := libevent_core libevent_extra
# intel-ipsec-mb has no file for pkg-config in Debian 12; distributions have it for amd64 only.
IPSEC_MB := $(if $(wildcard /usr/include/intel-ipsec-mb.h),-lIPSec_MB)
CPPFLAGS += $(if $(IPSEC_MB),-DHAVE_IPSEC_MB)
PKGS_ALL := openssl zlib libnghttp2 libmnl libprotobuf-c jansson yaml-0.1 ldns $(EVENT) liburcu-qsbr liburcu-cds uuid libbpf libseccomp cmocka
LIBS_ALL  = $(call pc,libs,$(PKGS_ALL)) $(IPSEC_MB)

# --- folders, in layer order: a folder may include itself and those before it --------------------
LAYERS  := base loop net steer state data control node admin
srcs     = $(wildcard userspace/$(1)/*.c)
objs     = $(patsubst %.c,$(B)/%.o,$(1))
PROTOS  := $(wildcard proto/*.proto)
PB_C    := $(patsubst proto/%.proto,$(B)/gen/proto/%.pb-c.c,$(PROTOS))
PB_O    := $(PB_C:.c=.o)
LIBS_A  := $(foreach l,$(LAYERS),$(B)/lib$(l).a)
BPF_SRC := $(wildcard bpf/*.bpf.c)
SKELS   := $(patsubst bpf/%.bpf.c,$(B)/gen/%.skel.h,$(BPF_SRC))

.DEFAULT_GOAL := all
.PHONY: all deps check check-unit check-valgrind check-net check-e2e check-deploy check-istiod check-long fuzz fuzz-smoke bench floods soak demo demo-istiod lint vmdeps \
        vm-programs vmcheck vmbench install uninstall clean
.DELETE_ON_ERROR:
.SECONDARY:

# --- programs: each carries only the libraries that its job needs --------------------------------------------------
BIN     := $(B)/bin
LIBEXEC := $(B)/libexec/culvert
all: $(LIBS_A)
# program: path, its own files in userspace/, packages
define program
all: $(1)
$(1): $(patsubst %,$(B)/userspace/%.o,$(2)) $(LIBS_A)
	$$(call say,LINK)
	@mkdir -p $$(@D)
	$(Q)$(CC) -o $$@ $(patsubst %,$(B)/userspace/%.o,$(2)) -Wl,--start-group $(LIBS_A) -Wl,--end-group $$(LDFLAGS_) \
		$(if $(3),$$(call pc,libs,$(3))) $(if $(findstring openssl,$(3)),$(IPSEC_MB))
endef
$(eval $(call program,$(BIN)/culvertd,culvertd,))
parts    = $(notdir $(basename $(wildcard $(patsubst %,userspace/%.c,$(1)))))
$(eval $(call program,$(BIN)/culvertctl,$(call parts,culvertctl* doctor_*),jansson libmnl))
$(eval $(call program,$(LIBEXEC)/culvert-keeper,$(call parts,keeper*),libbpf libmnl libprotobuf-c jansson uuid yaml-0.1 $(EVENT)))
$(eval $(call program,$(LIBEXEC)/culvert-tunnel,$(call parts,tunnel*), \
	openssl zlib libnghttp2 libprotobuf-c jansson yaml-0.1 ldns liburcu-qsbr liburcu-cds libseccomp $(EVENT)))

# The CNI plugin is copied to hosts that may have none of our libraries: it is linked statically, but for sanitizers.
CNI     := $(LIBEXEC)/culvert-cni
CNI_A   := $(B)/libcni.a
$(CNI_A): $(call objs,$(filter-out %/main.c,$(wildcard cni-plugin/*.c)))
	$(call say,AR)
	$(Q)rm -f $@ && ar rcs $@ $^
all: $(CNI)
$(CNI): $(B)/cni-plugin/main.o $(CNI_A) $(B)/libbase.a
	$(call say,LINK)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(if $(filter 1,$(SAN)),,-static) $(LDFLAGS_) -ljansson

# What it runs when the keeper is away: TLS, static as well. The linker's warnings are about names, which it does not
# resolve, and about engines, which it does not load.
CNI_API := $(LIBEXEC)/culvert-cni-api
all: $(CNI_API)
$(CNI_API): $(call objs,userspace/cni_api.c userspace/cni_api_get.c) $(B)/libnode.a $(B)/libbase.a
	$(call say,LINK)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(if $(filter 1,$(SAN)),,-static -Wl$(comma)--no-warnings) $(LDFLAGS_) -lssl -lcrypto -lyaml \
		-ljansson -luuid

define folder
OBJ_$(1) := $$(call objs,$$(call srcs,$(1)))
$(B)/lib$(1).a: $$(OBJ_$(1)) $(if $(filter control,$(1)),$(PB_O))
	$$(call say,AR)
	$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call folder,$(l))))
$(OBJ_control) $(OBJ_node) $(OBJ_admin): | $(PB_C)

# BPF objects: UAPI headers only, one object for all kernels. The asm/ headers sit in Debian's multiarch folder.
BPF_CFLAGS := -target bpf -O2 -g -Wall -Wextra -Werror -Iheaders -Ibpf $(patsubst %,-I%,$(wildcard \
	/usr/include/$(shell $(CC) -print-multiarch 2>/dev/null)/asm/..))
$(OBJ_steer): | $(SKELS)
$(B)/gen/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/gen/%.skel.h: $(B)/gen/%.bpf.o
	$(call say,SKEL)
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf >$@

$(B)/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS_) -c -o $@ $<

$(B)/gen/proto/%.pb-c.c: proto/%.proto
	$(call say,PROTO)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=proto --c_out=$(@D) $<
$(B)/gen/proto/%.o: $(B)/gen/proto/%.c
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS_) -w -c -o $@ $<

# --- tests -----------------------------------------------------------------------------------------
UNIT_SRC := $(wildcard tests/unit/*_test.c)
BENCH_BIN := $(B)/tests/bench/gen $(B)/tests/bench/server
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
# culvertctl without its main().
CTL_A    := $(B)/libctl.a
$(CTL_A): $(patsubst %,$(B)/userspace/%.o,$(filter-out culvertctl,$(call parts,culvertctl* doctor_*)))
	$(call say,AR)
	$(Q)rm -f $@ && ar rcs $@ $^
$(B)/tests/unit/%: tests/unit/%.c $(LIBS_A) $(CNI_A) $(CTL_A)
	$(call say,TEST)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) $(CNI_A) $(CTL_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)

# And how long lookups take while the mesh is replaced, which sanitizers would hide.
check-unit: $(UNIT_BIN) $(B)/tests/bench/state_bench
	@B=$(B) tests/tools/run.sh $(UNIT_BIN)
	$(if $(filter 1,$(SAN)),,@$(B)/tests/bench/state_bench 10000 1000 3 2000)

# Every allocation and descriptor of the unit tests, under valgrind.
check-valgrind: $(UNIT_BIN)
	@B=$(B) tests/tools/run.sh -w 'valgrind -q --suppressions=tests/tools/valgrind.supp --error-exitcode=99 \
		--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite' $^

# Tests in namespaces: C programs and scripts of tests/net, whole agents in tests/e2e. check-long has the full counts.
NET_SRC := $(wildcard tests/net/*_test.c)
NET_BIN := $(patsubst tests/net/%.c,$(B)/tests/net/%,$(NET_SRC))
$(B)/tests/net/%: tests/net/%.c $(LIBS_A)
	$(call say,TEST)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)
# Drives steer.h from the scripts beside it.
NET_TOOLS := $(B)/tests/net/steer_driver
check-net: all $(NET_BIN) $(NET_TOOLS)
	@B=$(B) tests/tools/run.sh $(NET_BIN) $(wildcard tests/net/*_test.py)
# Servers that tests drive.
FAKES := $(B)/tests/fake/istiod
$(FAKES): $(B)/tests/fake/%: tests/fake/%.c $(LIBS_A)
	$(call say,FAKE)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)
check-e2e: all $(FAKES) $(BENCH_BIN)
	@B=$(B) tests/tools/e2e.sh
# The chart, the image and the systemd unit.
check-deploy: all
	@B=$(B) tests/tools/run.sh $(wildcard tests/deploy/*_test.py)
check-long: all $(FAKES) $(BENCH_BIN) $(B)/tests/bench/state_bench
	@B=$(B) E2E_LOCAL=1 E2E_SHORT=100000 E2E_UPGRADES=10 E2E_KILLS=60 E2E_SANDBOXES=200 E2E_STREAM_KILLS=50 E2E_TTL=60 \
		E2E_LIMIT=1800 tests/tools/e2e.sh
	@$(B)/tests/bench/state_bench 50000 5000 5 2000
	@$(MAKE) --no-print-directory B=$(B) fuzz

# The real istiod, in Go, from the module proxy: only for this. make check runs its rows where it has been built.
GO     ?= $(firstword $(wildcard /usr/local/go/bin/go) go)
ISTIOD := $(B)/istiod/istiod
$(ISTIOD): $(wildcard tests/istiod/*.go) tests/istiod/go.mod tests/istiod/go.sum
	$(call say,GO)
	@$(GO) version >/dev/null || { echo "istiod: Go is needed, of the version in tests/istiod/go.mod (GO=/path/to/go)" >&2; exit 1; }
	$(Q)$(GO) build -C tests/istiod -trimpath -ldflags='-s -w' -o $(abspath $@) .
check-istiod: all $(ISTIOD)
	@B=$(B) tests/tools/run.sh $(wildcard tests/istiod/*_test.py)

# Fuzzers: built by tests/tools/fuzz.sh into a build folder of their own, with clang and sanitizers.
$(B)/tests/fuzz/%: tests/fuzz/%.c $(LIBS_A) $(CNI_A)
	$(call say,FUZZ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(LIBS_A) $(CNI_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)
# The same inputs each time, so that a change, not chance, fails it; make fuzz looks for new ones.
fuzz-smoke:
	@B=$(B) FUZZ_SEED=1 FUZZ_RUNS=30000 FUZZ_SECONDS=10 tests/tools/fuzz.sh
# make fuzz [MINUTES=5], of each target
fuzz:
	@B=$(B) FUZZ_SECONDS=$$(($(or $(MINUTES),5) * 60)) tests/tools/fuzz.sh

# --- benchmark and demo -------------------------------------------------------------------------------------
# make bench [ROUNDS=5] [ONLY="direct culvert-bpf"] [LOADS=rr] [ZTUNNEL=/path] [ENVOY=/path] [BASELINE=old.json]
ROUNDS    ?= 5
$(BENCH_BIN): $(B)/tests/bench/%: tests/bench/%.c tests/bench/bench.h
	$(call say,BENCH)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS_) -o $@ $< $(LDFLAGS_) -lm
bench: all $(BENCH_BIN)
	@B=$(B) ZTUNNEL='$(ZTUNNEL)' ENVOY='$(ENVOY)' tests/bench/run.py --rounds $(ROUNDS) --only '$(ONLY)' \
		$(if $(LOADS),--loads '$(LOADS)') $(if $(BASELINE),--baseline '$(BASELINE)')
# Parts alone: make bench-state [ARGS="WORKLOADS SERVICES PUSHES"], make bench-record [ARGS=SECONDS]
BENCH_PARTS := $(B)/tests/bench/state_bench $(B)/tests/bench/record_bench
$(BENCH_PARTS): $(B)/tests/bench/%: tests/bench/%.c $(LIBS_A)
	$(call say,BENCH)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)
bench-%: $(B)/tests/bench/%_bench
	@$< $(ARGS)
# Hostile clients: make floods [SECONDS=30] [ONLY="SETTINGS, reset"] [ZTUNNEL=/path]
floods: all $(BENCH_BIN)
	@B=$(B) ZTUNNEL='$(ZTUNNEL)' tests/bench/floods.py --seconds $(or $(SECONDS),30) --only '$(ONLY)'
# Pods, policies, certificates and connections that come and go: make soak [MINUTES=5]
soak: all
	@B=$(B) MINUTES=$(or $(MINUTES),5) tests/e2e/soak.py
demo: deps
	@$(MAKE) --no-print-directory B=$(B) all
	@B=$(B) tests/demo/demo.py
# The same with the real istiod, which takes Go to build.
demo-istiod: deps
	@$(MAKE) --no-print-directory B=$(B) all $(ISTIOD)
	@B=$(B) tests/demo/demo_istiod.py

# --- virtual machines: other kernels, kTLS ----------------------------------------------------------------------
# make vmcheck [VM_KERNELS="6.1 6.12 newest"] [VM_MODES="off tx on"] [VM_CASES="unit net tunnel"] [VM_ROWS=PATTERNS] [VM_FULL=1]
# make vmbench [VM_KERNELS="6.12"] [ARGS=--json=FILE]: guest instructions per MiB and per connection
export VM_KERNELS VM_MODES VM_CASES VM_ROWS VM_FULL
VM_BENCH := $(B)/vmtests/openssl_bench
$(VM_BENCH): $(B)/vmtests/%: vmtests/%.c $(LIBS_A)
	$(call say,BENCH)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) -Wl,--end-group $(LDFLAGS_) $(LIBS_ALL)
vmdeps: deps
	@tests/tools/deps.sh vm
vm-programs: all $(UNIT_BIN) $(NET_BIN) $(NET_TOOLS) $(FAKES)
vmcheck: vmdeps
	@$(MAKE) --no-print-directory B=$(B) vm-programs
	@B=$(B) vmtests/check
vmbench: vmdeps
	@$(MAKE) --no-print-directory B=$(B) all $(VM_BENCH)
	@B=$(B) vmtests/bench $(ARGS)

lint:
	@B=$(B) tests/tools/lint.sh
# Every test program through the compiler's front end: warnings without the time that linking takes.
TEST_SRC := $(wildcard vmtests/*.c tests/unit/*.c tests/net/*.c tests/bench/*.c tests/fake/*.c tests/fuzz/*.c)
.PHONY: tests-syntax $(TEST_SRC:=.syntax)
tests-syntax: $(TEST_SRC:=.syntax)
$(TEST_SRC:=.syntax): %.syntax: % | $(PB_C) $(SKELS)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(filter-out -MMD -MP,$(CFLAGS_)) \
		$(if $(filter tests/fuzz/%,$<),-Wno-missing-prototypes) -fsyntax-only $<

check: deps
	@B=$(B) tests/tools/check.sh

deps:
	@tests/tools/deps.sh

# --- installation ------------------------------------------------------------------------------------------------
UNITS = $(PREFIX)/lib/systemd/system
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/culvert $(DESTDIR)$(PREFIX)/share/doc/culvert
	install -m 755 $(BIN)/culvertd $(BIN)/culvertctl $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(LIBEXEC)/culvert-keeper $(LIBEXEC)/culvert-tunnel $(CNI) $(CNI_API) $(DESTDIR)$(PREFIX)/libexec/culvert
	install -d $(DESTDIR)$(PREFIX)/share/doc/culvert/deploy
	install -m 644 LICENSE README.md CONTRIBUTING.md SECURITY.md $(DESTDIR)$(PREFIX)/share/doc/culvert
	install -m 644 deploy/README.md $(DESTDIR)$(PREFIX)/share/doc/culvert/deploy
	install -D -m 644 deploy/helm/culvert/values.yaml $(DESTDIR)$(PREFIX)/share/doc/culvert/deploy/helm/culvert/values.yaml
	install -d $(DESTDIR)$(UNITS)
	sed 's|/usr/local/|$(PREFIX)/|' deploy/systemd/culvertd.service >$(DESTDIR)$(UNITS)/culvertd.service
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/culvertd $(DESTDIR)$(PREFIX)/bin/culvertctl $(DESTDIR)$(UNITS)/culvertd.service
	rm -rf $(DESTDIR)$(PREFIX)/libexec/culvert $(DESTDIR)$(PREFIX)/share/doc/culvert

clean:
	rm -rf build build-*

# What a person calls; CONTRIBUTING.md says what the tests need.
help:
	@printf '%s\n' 'make all          build into build/ (B=FOLDER, V=1, SAN=1)' \
		'make deps         install what the build and the tests need' \
		'make demo         two nodes, four pods, real programs (root)' \
		'make check        all tests (root); of it check-unit check-net check-e2e check-deploy fuzz-smoke' \
		'make check-long   the longer ones; check-istiod, check-valgrind, fuzz' \
		'make vmcheck      on other kernels; vmbench: guest instructions' \
		'make bench        figures, beside ztunnel and Envoy (ZTUNNEL=, ENVOY=)' \
		'make lint         formatting, layers, warnings' \
		'make install      below PREFIX (/usr/local), DESTDIR; uninstall' \
		'make clean        remove what was built'
.PHONY: help

-include $(shell find $(B) -name '*.d' 2>/dev/null)
