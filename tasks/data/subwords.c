/* subwords.c - which kind of model a file is, and the way to it.  See subwords.h. */
#define _GNU_SOURCE
#include "subwords.h"
#include "subword_nmt.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

struct subwords {
    const subwords_library *library;    /* NULL: codes */
    void *model;
    subword_nmt *codes;
};

/* The object beside the one that this function is in, or NULL with a sentence. */
static const subwords_library *load(char *why, size_t nwhy)
{
    static const subwords_library *loaded;      /* the loader keeps one object however often it is asked */
    Dl_info self;
    char path[4096];
    if (loaded) return loaded;
    int found = dladdr((void *)(uintptr_t)load, &self) && self.dli_fname;
    const char *slash = found ? strrchr(self.dli_fname, '/') : NULL;
    snprintf(path, sizeof path, "%.*s" SUBWORDS_OBJECT, slash ? (int)(slash - self.dli_fname + 1) : 0, found ? self.dli_fname : "");
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const subwords_library *library = object ? dlsym(object, SUBWORDS_SYMBOL) : NULL;
    if (library && library->size == sizeof *library) return loaded = library;
    snprintf(why, nwhy, "this build has no sentencepiece (%s)", object ? "another version's object lies beside it" : dlerror());
    return NULL;
}

/* Whether a file begins as subword-nmt's codes do: 1, 0, or -1 with a sentence. */
static int is_codes(const char *path, char *why, size_t nwhy)
{
    char head[9] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(head, 1, 8, f) : 0;
    if (!f || ferror(f)) snprintf(why, nwhy, "%s: %s", path, strerror(errno));
    int code = !f || ferror(f) ? -1 : n == 8 && !strcmp(head, "#version");
    if (f) fclose(f);
    return code;
}

subwords *subwords_open(const char *path, char *why, size_t nwhy)
{
    int codes = is_codes(path, why, nwhy);
    subwords *s = codes < 0 ? NULL : calloc(1, sizeof *s);
    if (!s) return NULL;
    if (codes) s->codes = subword_nmt_open(path, why, nwhy);
    else if ((s->library = load(why, nwhy))) s->model = s->library->open(path, why, nwhy);
    if (s->codes || s->model) return s;
    free(s);
    return NULL;
}

void subwords_close(subwords *s)
{
    if (!s) return;
    if (s->model) s->library->close(s->model);
    subword_nmt_close(s->codes);
    free(s);
}

char *subwords_split(const subwords *s, const char *line)
{
    if (u8_check((const uint8_t *)line, strlen(line))) return NULL;
    return s->codes ? subword_nmt_split(s->codes, line) : s->library->split(s->model, line);
}

char *subwords_join(const subwords *s, const char *units)
{
    return s->codes ? subword_nmt_join(units) : s->library->join(s->model, units);
}

int subwords_train(const subwords_training *t, const char *path, char *why, size_t nwhy)
{
    const subwords_library *library = load(why, nwhy);
    return library ? library->train(t, path, why, nwhy) : -1;
}
