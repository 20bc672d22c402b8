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

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
           -Wno-unused-parameter -Wno-missing-field-initializers
OPT     := $(if $(filter 1,$(SAN)),-O1 -fno-omit-frame-pointer -fsanitize=address$(comma)undefined \
           -fno-sanitize-recover=undefined,-O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -ffunction-sections)
comma   := ,
CPPFLAGS += -D_GNU_SOURCE -Iuserspace -Iheaders -I$(B)/gen
CFLAGS   ?=
CFLAGS_  = -std=gnu11 -g $(OPT) $(WARN) -MMD -MP -pthread $(CFLAGS)
LDFLAGS_ = -g $(OPT) -pthread -Wl,--as-needed $(if $(filter 1,$(SAN)),,-Wl$(comma)--gc-sections -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now) $(LDFLAGS)

# --- libraries, by the folder that may use them ------------------------------------------------
pc      = $(shell $(PKG) --$(1) $(2) 2>/dev/null)
PKGS_ALL := openssl libnghttp2 libmnl libprotobuf-c jansson yaml-0.1 libevent liburcu liburcu-cds uuid libcurl libbpf cmocka

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

.PHONY: all deps check bench demo lint install uninstall clean help
.DELETE_ON_ERROR:
.SECONDARY:

all: $(LIBS_A)

define folder
OBJ_$(1) := $$(call objs,$$(call srcs,$(1)))
$(B)/lib$(1).a: $$(OBJ_$(1)) $(if $(filter control,$(1)),$(PB_O))
	$$(call say,AR)
	$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call folder,$(l))))

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
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
$(B)/tests/unit/%: tests/unit/%.c $(LIBS_A)
	$(call say,TEST)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_) -o $@ $< -Wl,--start-group $(LIBS_A) -Wl,--end-group $(LDFLAGS_) $(call pc,libs,cmocka)

check-unit: $(UNIT_BIN)
	@set -e; for t in $^; do printf '%s\n' "$$t"; $$t; done

check: deps
	@$(MAKE) --no-print-directory all check-unit

deps:
	@tests/tools/deps.sh

clean:
	rm -rf build build-*

-include $(shell find $(B) -name '*.d' 2>/dev/null)
