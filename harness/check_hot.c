/* check_hot.c - hot code allocates nothing and prints nothing.
 *
 * The plug-in's own imports of malloc and its kin are redirected, in its global offset table, to wrappers that
 * count; what libraries that it calls do for themselves (OpenMP's thread team) is not its doing and not
 * counted.  Works under the sanitizers as well, since the wrappers call whatever malloc the program has. */
#define _GNU_SOURCE                     /* dlinfo */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "check_case.h"

static atomic_int hot;
static atomic_long allocations;
static long printed;                    /* bytes on stdout when the call began */

static void count(void) { if (atomic_load_explicit(&hot, memory_order_relaxed)) atomic_fetch_add(&allocations, 1); }

static void *counted_malloc(size_t n) { count(); return malloc(n); }
static void *counted_calloc(size_t n, size_t size) { count(); return calloc(n, size); }
static void *counted_realloc(void *p, size_t n) { count(); return realloc(p, n); }
static void *counted_aligned_alloc(size_t align, size_t n) { count(); return aligned_alloc(align, n); }
static int counted_posix_memalign(void **p, size_t align, size_t n) { count(); return posix_memalign(p, align, n); }
static void counted_free(void *p) { count(); free(p); }

static const struct { const char *name; void *wrapper; } wrappers[] = {
    { "malloc", counted_malloc }, { "calloc", counted_calloc }, { "realloc", counted_realloc },
    { "aligned_alloc", counted_aligned_alloc }, { "posix_memalign", counted_posix_memalign }, { "free", counted_free },
    { "_Znwm", counted_malloc }, { "_Znam", counted_malloc },       /* C++ new */
};

/* Points one entry of the table elsewhere; it may lie in memory made read-only after loading. */
static void redirect(void **entry, void *to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)entry & ~(page - 1);
    if (mprotect((void *)start, page, PROT_READ | PROT_WRITE) == 0) *entry = to;
}

static void redirect_all(const struct link_map *map, const ElfW(Rela) *rela, size_t bytes, const ElfW(Sym) *symbols, const char *names)
{
    for (size_t i = 0; rela && i < bytes / sizeof *rela; i++) {
        size_t symbol = sizeof(void *) == 8 ? ELF64_R_SYM(rela[i].r_info) : ELF32_R_SYM(rela[i].r_info);
        for (size_t w = 0; symbol && rela[i].r_addend == 0 && w < sizeof wrappers / sizeof *wrappers; w++)
            if (!strcmp(names + symbols[symbol].st_name, wrappers[w].name))
                redirect((void **)(map->l_addr + rela[i].r_offset), wrappers[w].wrapper);
    }
}

void hs_hot_watch(void *handle)
{
    struct link_map *map = NULL;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) || !map) return;
    const ElfW(Rela) *rela = NULL, *plt = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    size_t rela_bytes = 0, plt_bytes = 0;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_RELA) rela = (void *)d->d_un.d_ptr;
        if (d->d_tag == DT_RELASZ) rela_bytes = d->d_un.d_val;
        if (d->d_tag == DT_JMPREL) plt = (void *)d->d_un.d_ptr;
        if (d->d_tag == DT_PLTRELSZ) plt_bytes = d->d_un.d_val;
        if (d->d_tag == DT_SYMTAB) symbols = (void *)d->d_un.d_ptr;
        if (d->d_tag == DT_STRTAB) names = (void *)d->d_un.d_ptr;
    }
    if (!symbols || !names) return;
    redirect_all(map, rela, rela_bytes, symbols, names);
    redirect_all(map, plt, plt_bytes, symbols, names);
}

/* Bytes that stdout, a file in this process, has so far. */
static long stdout_bytes(void)
{
    fflush(stdout);
    long at = (long)lseek(STDOUT_FILENO, 0, SEEK_END);
    return at < 0 ? 0 : at;
}

void hs_hot_begin(void)
{
    printed = stdout_bytes();
    atomic_store(&allocations, 0);
    atomic_store(&hot, 1);
}

void hs_hot_end(hs_hot *h)
{
    atomic_store(&hot, 0);
    h->allocations += atomic_load(&allocations);
    h->printed += stdout_bytes() - printed;
}
