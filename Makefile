# harness - see README.md.  `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := all

# ---- what was found ---------------------------------------------------------------------------
ifeq ($(origin CC),default)
CC      := gcc
endif
NVCC    := $(shell command -v nvcc 2>/dev/null || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
GNUPLOT := $(shell command -v gnuplot 2>/dev/null)
LIB_PKGS := openblas jansson libmd libpcre2-8#     what libharness.so stands on, with libunistring, which pkg-config does not know
PKGS    := yaml-0.1 sqlite3 $(LIB_PKGS)
IO_PKGS := libarchive libcurl#                what alone unpacks and fetches stands on
MISSING := $(shell for p in $(PKGS) $(IO_PKGS); do pkg-config --exists $$p 2>/dev/null || echo $$p; done)
# One instruction set for a whole class of machines, so that the same source gives the same bits on all of them.
MARCH   ?= $(shell grep -qw avx2 /proc/cpuinfo 2>/dev/null && grep -qw fma /proc/cpuinfo && echo x86-64-v3 || echo $(if $(filter x86_64,$(shell uname -m)),x86-64,native))

# ---- how it is built: make SAN=address,undefined   make DEBUG=1   make CC=clang ------------------------
SAN   ?=
DEBUG ?=
comma := ,
B     := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(DEBUG),-debug)$(if $(filter clang%,$(notdir $(CC))),-clang)

WARN   := -Wall -Wextra -Werror -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wno-missing-field-initializers
OPT    := $(if $(DEBUG),-O1 -DK_DEBUG,$(if $(SAN),-O1 -DK_DEBUG,-O3))
CFLAGS += -std=gnu17 -g $(OPT) -march=$(MARCH) -fopenmp -fno-math-errno -fno-trapping-math -fPIC \
          -ffile-prefix-map=$(CURDIR)=. $(WARN) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
GIT_COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
INC    := -I. -Iharness $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -ldl

LIB_SRC  := $(wildcard kernels/cpu/*.c harness/nn/*.c tasks/data/*.c)
PROG_SRC := $(wildcard harness/*.c)
VARIANTS := $(patsubst variants/%.c,$(B)/variants/%.so,$(filter-out variants/TEMPLATE.c,$(wildcard variants/*.c)))
TASKS    := $(patsubst tasks/%.c,$(B)/tasks/%.so,$(wildcard tasks/*.c))
UNIT     := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*.c))
BAD      := $(patsubst tests/fault/%.c,$(B)/tests/fault/%.so,$(wildcard tests/fault/*.c))
GPUBENCH := $(patsubst tests/gpu/bench/%.c,$(B)/tests/gpu/bench/%,$(wildcard tests/gpu/bench/*.c))
GPU      := $(patsubst tests/gpu/%.c,$(B)/tests/gpu/%,$(wildcard tests/gpu/*.c))
GOLDEN   := $(patsubst tests/golden/%.c,$(B)/tests/golden/%,$(wildcard tests/golden/*.c))
BENCHES  := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))
obj       = $(patsubst %.c,$(B)/obj/%.o,$(1))

PREFIX ?= /usr/local
HARNESS := $(B)/harness

# ---- the CUDA half, where there is nvcc: an object of its own, loaded when a CUDA device is asked for ----
CUDA_ARCH ?= 90a
NVFLAGS   := -std=c++17 -O3 -lineinfo -gencode=arch=compute_$(CUDA_ARCH),code=sm_$(CUDA_ARCH) --expt-relaxed-constexpr \
             -Xcompiler -fPIC,-Wall,-Wextra,-Werror,-Wno-unused-parameter -I. -Iharness
CUDA_DIR  := build/cuda-$(CUDA_ARCH)#                one for all builds: neither CC nor SAN is of any account to nvcc
CUDA_OBJ  := $(patsubst %.cu,$(CUDA_DIR)/%.cu.o,$(wildcard kernels/cuda/*.cu))
CUDA_LIB  := $(if $(and $(NVCC),$(CUDA_OBJ)),$(B)/libharness-cuda.so)
# ---- sentencepiece, where it is installed: an object of its own, because it is C++ ------------------------
SPM_LIB   := $(if $(shell pkg-config --exists sentencepiece 2>/dev/null && command -v g++),$(B)/libharness-sentencepiece.so)

.PHONY: all help found deps run test bench install clean lint
all: found $(HARNESS) $(B)/libharness-data.so $(CUDA_LIB) $(SPM_LIB) $(VARIANTS) $(TASKS)   ## build the program, libharness.so, every variant and every task

help:                                        ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: CC=clang  SAN=address,undefined  DEBUG=1  MARCH=native  PREFIX=/usr/local  V=name (make check)"

found:                                       ## say what the build found on this machine
	@echo "compiler  $$($(CC) --version | head -1), -march=$(MARCH)"
	@echo "blas      $$(pkg-config --exists openblas && echo "OpenBLAS $$(pkg-config --modversion openblas)" || echo 'none: run make deps')"
	@echo "nvcc      $(or $(NVCC),none: the CUDA half is not built)"
	@echo "gnuplot   $(or $(GNUPLOT),none: figures are written as .tsv and .gp only)"
	@$(if $(strip $(MISSING)),echo "missing   $(MISSING): run make deps" >&2; exit 1,true)

deps:                                        ## install what is missing (apt-get; sudo when not root)
	@tools/deps.sh

# make run and make test start a second make, because the packages that deps installs change what this one found.
run: deps                                    ## install, build, run experiments/capacity.yaml, draw its figure
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@$(HARNESS) run experiments/capacity.yaml
	@$(HARNESS) plot experiments/capacity.yaml --published

test: deps                                   ## install, build and run every test (SAN=address,undefined too)
	@$(MAKE) --no-print-directory -j$$(nproc) all tests
	@B=$(B) SAN=$(SAN) tests/run.sh

test-gpu: all $(GPU)                         ## run the tests that need a GPU, on a machine that has one
	@B=$(B) tests/gpu/run.sh

.PHONY: tests check test-gpu bench-gpu
tests: $(UNIT) $(BAD) $(GOLDEN)
check: all                                   ## conformance of one variant: make check V=softmax
	$(HARNESS) check $(if $(V),$(B)/variants/$(V).so,$(VARIANTS))

bench: all $(BENCHES)                        ## benchmarks of speed and size
	@B=$(B) tests/bench/run.sh

bench-gpu: all $(GPUBENCH)                   ## benchmarks of the GPU's kernels, on a machine that has one
	@for b in $(GPUBENCH) $(wildcard tests/gpu/bench/*.sh); do echo "== $${b##*/}"; case $$b in *.sh) B=$(B) bash $$b;; *) $$b;; esac; done

lint:                                        ## cppcheck over the whole tree
	cppcheck --quiet -j$$(nproc) --std=c11 --error-exitcode=1 --enable=warning,portability --inline-suppr \
	  --suppress=missingIncludeSystem -I. -Iharness kernels/cpu harness variants tasks

install: all                                 ## install under PREFIX (DESTDIR respected)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/harness/plugins $(DESTDIR)$(PREFIX)/include/harness
	install -d $(DESTDIR)$(PREFIX)/share/harness/plots
	install -m644 plots/*.gp.in $(DESTDIR)$(PREFIX)/share/harness/plots
	install -m644 variants/TEMPLATE.c $(DESTDIR)$(PREFIX)/share/harness
	install -m755 $(HARNESS) $(DESTDIR)$(PREFIX)/bin/harness
	install -m755 $(B)/libharness.so $(B)/libharness-data.so $(CUDA_LIB) $(SPM_LIB) $(DESTDIR)$(PREFIX)/lib
	install -m755 $(VARIANTS) $(TASKS) $(DESTDIR)$(PREFIX)/lib/harness/plugins
	install -m644 harness/attn.h kernels/kernels.h $(DESTDIR)$(PREFIX)/include/harness
	sed 's|"../kernels/kernels.h"|"kernels.h"|' harness/task.h >$(DESTDIR)$(PREFIX)/include/harness/task.h

clean:                                       ## remove what was built
	rm -rf build build-*

# ---- rules ---------------------------------------------------------------------------------------
$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(INC) -MMD -MP -c $< -o $@
# The commit is in one object alone, so that a commit rebuilds nothing else.
$(B)/obj/harness/env.o: CFLAGS += -DHS_GIT='"$(GIT_COMMIT)"' -DHS_CFLAGS='"$(OPT) -march=$(MARCH)"'

$(B)/libharness.so: $(call obj,$(LIB_SRC))
	$(CC) $(CFLAGS) -shared -Wl,-soname,libharness.so $^ -o $@ $(shell pkg-config --libs $(LIB_PKGS)) -lunistring -lm -ldl
# What unpacks and fetches is opened when it is needed: a machine that only trains needs neither libarchive nor libcurl.
$(B)/obj/tasks/data/io/%.o: CFLAGS += -fvisibility=hidden $(shell pkg-config --cflags $(IO_PKGS) 2>/dev/null)
$(B)/libharness-data.so: $(call obj,$(wildcard tasks/data/io/*.c))
	$(CC) $(CFLAGS) -shared $^ -o $@ $(shell pkg-config --libs $(IO_PKGS))
$(HARNESS): $(call obj,$(PROG_SRC)) $(B)/libharness.so
	$(CC) $(CFLAGS) -rdynamic $(call obj,$(PROG_SRC)) -o $@ -L$(B) -lharness -Wl,-rpath,'$$ORIGIN:$$ORIGIN/../lib' $(LIBS)
$(B)/libharness-sentencepiece.so: tasks/data/sentencepiece.cc tasks/data/subwords.h
	@mkdir -p $(@D)
	g++ -std=c++17 -O2 -Wall -Wextra -Werror -fPIC -shared $< -o $@ $(shell pkg-config --cflags --libs sentencepiece)
# Static cudart, and what it calls of kernels.h comes from the program: the build runs where CUDA is not installed.
$(CUDA_DIR)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
$(CUDA_DIR)/kernels/cuda/device.cu.o: NVFLAGS += -DK_CUDA_ARCH='"sm_$(CUDA_ARCH)"'
# The numbers are the CPU's to the bit: nothing is contracted that normal.h does not spell out.
$(CUDA_DIR)/kernels/cuda/random.cu.o: NVFLAGS += -fmad=false
$(B)/libharness-cuda.so: $(CUDA_OBJ)
	$(NVCC) -shared -cudart static $^ -o $@ -lcublas -lcublasLt -Xlinker -rpath,$(abspath $(dir $(NVCC))../lib64)
# A plug-in is one file; what it uses of kernels.h and nn.h is in the program that loads it.
$(B)/variants/%.so $(B)/tasks/%.so $(B)/tests/fault/%.so: CFLAGS += -fvisibility=hidden
$(B)/variants/%.so: $(B)/obj/variants/%.o
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared $^ -o $@ -lm
$(B)/tasks/%.so: $(B)/obj/tasks/%.o
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared $^ -o $@ -lm
$(B)/tests/fault/%.so: $(B)/obj/tests/fault/%.o
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared $^ -o $@ -lm
$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(filter-out $(B)/obj/harness/main.o,$(call obj,$(PROG_SRC))) $(B)/libharness.so
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -rdynamic $(filter %.o,$^) -o $@ -L$(B) -lharness -Wl,-rpath,'$$ORIGIN/../..' $(LIBS) -lcmocka
$(B)/tests/gpu/%: $(B)/obj/tests/gpu/%.o $(B)/libharness.so
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -rdynamic $(filter %.o,$^) -o $@ -L$(B) -lharness -Wl,-rpath,'$$ORIGIN/../..:$$ORIGIN/../../..' -lm
$(B)/tests/golden/%: $(B)/obj/tests/golden/%.o $(filter-out $(B)/obj/harness/main.o,$(call obj,$(PROG_SRC))) $(B)/libharness.so
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -rdynamic $(filter %.o,$^) -o $@ -L$(B) -lharness -Wl,-rpath,'$$ORIGIN/../..' $(LIBS)
$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o $(filter-out $(B)/obj/harness/main.o,$(call obj,$(PROG_SRC))) $(B)/libharness.so
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -rdynamic $(filter %.o,$^) -o $@ -L$(B) -lharness -Wl,-rpath,'$$ORIGIN/../..' $(LIBS)
.SECONDARY:
-include $(shell find $(B)/obj $(CUDA_DIR) -name '*.d' 2>/dev/null)
