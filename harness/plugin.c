/* plugin.c - opening one plug-in and describing it.
 *
 * Runs in a worker or in a child of the catalog, never in the runner: dlopen executes the plug-in's code. */
#include "plugin.h"
#include "options.h"
#include "protocol.h"
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OTHER_MAJORS = 100 };            /* majors that a refusal can name */

/* ---- is it a whole ELF file? ---------------------------------------------------------------------- */
/* Every segment and the section table must lie inside the file: dlopen maps what the header promises and a
 * truncated file would raise SIGBUS there. */
static int segments_inside(int fd, const Elf64_Ehdr *eh, off_t size)
{
    if (eh->e_shoff + (uint64_t)eh->e_shnum * eh->e_shentsize > (uint64_t)size) return 0;
    for (int i = 0; i < eh->e_phnum; i++) {
        Elf64_Phdr ph;
        off_t at = (off_t)eh->e_phoff + (off_t)i * eh->e_phentsize;
        if (pread(fd, &ph, sizeof ph, at) != sizeof ph) return 0;
        if (ph.p_type == PT_LOAD && ph.p_offset + ph.p_filesz > (uint64_t)size) return 0;
    }
    return 1;
}

/* NULL when path is a whole shared object, else what it is instead. */
static const char *not_a_shared_object(const char *path)
{
    struct stat st;
    Elf64_Ehdr eh;
    const char *what = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? "no such file" : strerror(errno);
    ssize_t n = fstat(fd, &st) ? -1 : S_ISREG(st.st_mode) ? pread(fd, &eh, sizeof eh, 0) : -2;
    if (n == -2) what = "is not a file";
    else if (n < 0) what = strerror(errno);
    else if (n < SELFMAG || memcmp(eh.e_ident, ELFMAG, SELFMAG)) what = "is not a shared object (no ELF header)";
    else if (n < (ssize_t)sizeof eh || !segments_inside(fd, &eh, st.st_size)) what = "is truncated";
    else if (eh.e_type != ET_DYN) what = "is an ELF file but not a shared object";
    close(fd);
    return what;
}

/* dlopen's complaint about `path` in our words, into why. */
static void explain_dlerror(const char *path, const char *error, char *why, size_t nwhy)
{
    static const char undefined[] = "undefined symbol: ";
    const char *name = strstr(error, undefined);
    if (name) {
        name += sizeof undefined - 1;
        snprintf(why, nwhy, "%s: needs the symbol %.*s, which harness does not have", path,
                 (int)strcspn(name, " ,"), name);
        return;
    }
    if (!strncmp(error, path, strlen(path)) && error[strlen(path)] == ':') error += strlen(path) + 2;
    snprintf(why, nwhy, "%s: cannot be loaded: %s", path, error);
}

/* ---- symbols and tables ---------------------------------------------------------------------------------- */
/* Neither symbol is there: says so, or names the other major that is. */
static int refuse_symbols(void *handle, const char *path, char *why, size_t nwhy)
{
    static const char *const stems[] = { "attn_variants_v", "harness_tasks_v" };
    for (int s = 0; s < 2; s++)
        for (int major = 0; major < OTHER_MAJORS; major++) {
            char name[32];
            snprintf(name, sizeof name, "%s%d", stems[s], major);
            if (!dlsym(handle, name)) continue;
            snprintf(why, nwhy, "%s: is built for ABI major %d, this harness speaks %d", path, major,
                     s ? TASK_ABI_MAJOR : ATTN_ABI_MAJOR);
            return -1;
        }
    snprintf(why, nwhy, "%s: is no plug-in: it exports neither %s nor %s", path, ATTN_SYMBOL, TASK_SYMBOL);
    return -1;
}

/* Is the name of table i that of an earlier one? */
static int variant_twice(const hs_plugin *p, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!strcmp(p->variants[j]->name, p->variants[i]->name)) return 1;
    return 0;
}

/* The same for tasks. */
static int task_twice(const hs_plugin *p, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!strcmp(p->tasks[j]->name, p->tasks[i]->name)) return 1;
    return 0;
}

/* Checks every variant of the file, and that no name comes twice. */
static int check_variants(const hs_plugin *p, char *why, size_t nwhy)
{
    char what[256];
    if (p->variants && !p->variants[0])
        return snprintf(why, nwhy, "%s: %s lists no variant", p->path, ATTN_SYMBOL), -1;
    for (size_t i = 0; p->variants && p->variants[i]; i++) {
        const char *name = p->variants[i]->size >= offsetof(attn_variant, title) ? p->variants[i]->name : NULL;
        if (hs_variant_valid(p->variants[i], what, sizeof what))
            return snprintf(why, nwhy, "%s: bad table of variant %s: %s", p->path, name ? name : "(no name)", what), -1;
        if (variant_twice(p, i))
            return snprintf(why, nwhy, "%s: has two variants of the name %s", p->path, name), -1;
    }
    return 0;
}

/* The same for its tasks. */
static int check_tasks(const hs_plugin *p, char *why, size_t nwhy)
{
    char what[256];
    if (p->tasks && !p->tasks[0])
        return snprintf(why, nwhy, "%s: %s lists no task", p->path, TASK_SYMBOL), -1;
    for (size_t i = 0; p->tasks && p->tasks[i]; i++) {
        const char *name = p->tasks[i]->size >= offsetof(task, title) ? p->tasks[i]->name : NULL;
        if (hs_task_valid(p->tasks[i], what, sizeof what))
            return snprintf(why, nwhy, "%s: bad table of task %s: %s", p->path, name ? name : "(no name)", what), -1;
        if (task_twice(p, i))
            return snprintf(why, nwhy, "%s: has two tasks of the name %s", p->path, name), -1;
    }
    return 0;
}

/* See plugin.h. */
int hs_plugin_open(const char *path, hs_plugin *p, char *why, size_t nwhy)
{
    const char *what = not_a_shared_object(path);
    memset(p, 0, sizeof *p);
    if (what) return snprintf(why, nwhy, "%s: %s", path, what), -1;
    p->path = realpath(path, NULL);     /* dlopen searches its own folders for a name without a slash */
    p->handle = p->path ? dlopen(p->path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!p->handle) {
        const char *error = p->path ? dlerror() : strerror(errno);
        explain_dlerror(p->path ? p->path : path, error ? error : "unknown reason", why, nwhy);
        hs_plugin_close(p);
        return -1;
    }
    p->variants = (const attn_variant *const *)dlsym(p->handle, ATTN_SYMBOL);
    p->tasks = (const task *const *)dlsym(p->handle, TASK_SYMBOL);
    if (!p->variants && !p->tasks) refuse_symbols(p->handle, p->path, why, nwhy);
    else if (!check_variants(p, why, nwhy) && !check_tasks(p, why, nwhy)) return 0;
    hs_plugin_close(p);
    return -1;
}

/* Closes and frees; fine on what a failed open left. */
void hs_plugin_close(hs_plugin *p)
{
    if (p->handle) dlclose(p->handle);
    free(p->path);
    memset(p, 0, sizeof *p);
}

/* The variant of that name, or NULL. */
const attn_variant *hs_plugin_variant(const hs_plugin *p, const char *name)
{
    for (size_t i = 0; p->variants && p->variants[i]; i++)
        if (!strcmp(p->variants[i]->name, name)) return p->variants[i];
    return NULL;
}

/* The task of that name, or NULL. */
const task *hs_plugin_task(const hs_plugin *p, const char *name)
{
    for (size_t i = 0; p->tasks && p->tasks[i]; i++)
        if (!strcmp(p->tasks[i]->name, name)) return p->tasks[i];
    return NULL;
}

/* ---- describing -------------------------------------------------------------------------------------------- */
/* Text of a plug-in, which may be NULL or not UTF-8. */
static json_t *text_json(const char *s)
{
    return hs_json_text(s ? s : "");
}

/* The names of the bits that are set in a mask, in the order of bits. */
static json_t *mask_json(int32_t mask, const char *const *names)
{
    json_t *list = json_array();
    for (int i = 0; names[i]; i++)
        if (mask & (1 << i)) json_array_append_new(list, json_string(names[i]));
    return list;
}

static const char *const dtype_bits[] = { "f32", "bf16", "f16", "f64", NULL };
static const char *const mode_bits[] = { "causal", "bidirectional", "cross", NULL };
static const char *const device_bits[] = { "cpu", "cuda", NULL };
static const char *const param_bits[] = { "frozen", "no_decay", "redraw", "optional", NULL };
static const char *const variant_bits[] = { "looks_ahead", "shared_qk", "no_q", "no_k", "nondet", NULL };

/* impls as [{name,device,dtypes,modes,rank,trains,decodes}]. */
static json_t *impls_json(const attn_impl *impl)
{
    json_t *list = json_array();
    for (; impl->name; impl++)
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:o, s:i, s:b, s:b}", "name", text_json(impl->name),
            "device", device_bits[impl->device == ATTN_CUDA], "dtypes", mask_json(impl->dtypes, dtype_bits),
            "modes", mask_json(impl->modes, mode_bits), "rank", (int)impl->rank, "trains", impl->backward != NULL,
            "decodes", impl->decode != NULL));
    return list;
}

/* One variant, without path and digest. */
static json_t *variant_json(const attn_variant *v)
{
    json_t *gates = json_array(), *params = json_array(), *states = json_array();
    for (const attn_gate *g = v->gates; g && g->name; g++)
        json_array_append_new(gates, json_pack("{s:o, s:o}", "name", text_json(g->name), "help", text_json(g->help)));
    for (const attn_param *p = v->params; p && p->name; p++)
        json_array_append_new(params, json_pack("{s:o, s:o, s:o}", "name", text_json(p->name), "help",
                                                text_json(p->help), "flags", mask_json(p->flags, param_bits)));
    for (const attn_state *s = v->states; s && s->name; s++)
        json_array_append_new(states, json_pack("{s:o, s:o}", "name", text_json(s->name), "help", text_json(s->help)));
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind", "variant",
                     "name", text_json(v->name), "title", text_json(v->title), "paper", text_json(v->paper),
                     "cost", text_json(v->cost), "flags", mask_json((int32_t)v->flags, variant_bits),
                     "options", hs_opts_describe(v->opts), "gates", gates, "params", params, "states", states,
                     "impls", impls_json(v->impls));
}

/* {option: value}. */
static json_t *defaults_json(const task_default *d)
{
    json_t *defaults = json_object();
    for (; d && d->option; d++) json_object_set_new(defaults, d->option, text_json(d->value));
    return defaults;
}

/* One task, without path and digest. */
static json_t *task_json(const task *t)
{
    json_t *metrics = json_array();
    for (const task_metric *m = t->metrics; m->name; m++)
        json_array_append_new(metrics, json_pack("{s:o, s:o, s:o, s:i, s:b}", "name", text_json(m->name), "unit",
                              text_json(m->unit), "help", text_json(m->help), "better", (int)m->better, "series",
                              (int)m->series));
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind", "task", "name", text_json(t->name),
                     "title", text_json(t->title), "paper", text_json(t->paper), "options", hs_opts_describe(t->opts),
                     "metrics", metrics, "train_defaults", defaults_json(t->train_defaults),
                     "model_defaults", t->model_defaults ? defaults_json(t->model_defaults) : json_null());
}

/* Adds where it is from, and appends it. */
static void append_from(json_t *list, json_t *one, const char *path, const char *digest)
{
    json_object_set_new(one, "path", text_json(path));
    json_object_set_new(one, "digest", json_string(digest));
    json_array_append_new(list, one);
}

/* See plugin.h. */
json_t *hs_plugin_describe(const hs_plugin *p)
{
    char digest[65] = "";
    json_t *variants = json_array(), *tasks = json_array();
    hs_file_digest(p->path, digest);
    for (size_t i = 0; p->variants && p->variants[i]; i++)
        append_from(variants, variant_json(p->variants[i]), p->path, digest);
    for (size_t i = 0; p->tasks && p->tasks[i]; i++)
        append_from(tasks, task_json(p->tasks[i]), p->path, digest);
    return json_pack("{s:o, s:o}", "variants", variants, "tasks", tasks);
}

/* See plugin.h. */
int hs_file_digest(const char *path, char out[65])
{
    return SHA256File(path, out) ? 0 : -1;
}
