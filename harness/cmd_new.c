/* cmd_new.c - `harness new NAME [DIR]`: a folder with a variant that works, a Makefile and an experiment.
 *
 * Invariants:
 *  1. The variant is variants/TEMPLATE.c with another name, so that a new one starts from what the tests check.
 *  2. The folder may lie anywhere: it knows this harness and its headers by absolute paths.
 *  3. Nothing that exists is touched, and a folder that cannot be completed is taken away again. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "command.h"
#include "options.h"
#include "plan.h"

enum { LONGEST = 60 };                  /* characters of a name */

static const char makefile[] =
    "# template - make check: is it right?  make run: how good is it?\n"
    "HARNESS ?= %HARNESS%\n"
    "ATTN_H  := %INCLUDE%\n"
    "CFLAGS  ?= -std=gnu17 -O3 -fopenmp -Wall -Wextra\n"
    "\n"
    "all: template.so\n"
    "%.so: %.c\n"
    "\t$(CC) $(CFLAGS) -fPIC -shared -I$(ATTN_H) $< -o $@ -lm\n"
    "check: template.so\n"
    "\t$(HARNESS) check template.so\n"
    "run: template.so\n"
    "\t$(HARNESS) run template.yaml\n"
    ".PHONY: all check run\n";
static const char experiment[] =
    "# How many associations does a memory of one head hold?  Any scalar here may be a list: it becomes an axis.\n"
    "experiment: \"template\"\n"
    "about: a memory of few keys, template against softmax and linear attention\n"
    "task: {name: associative_retrieval, keys: [4, 8, 12, 16, 24, 32], d_key: 16}\n"
    "variants:\n"
    "  - softmax\n"
    "  - linear\n"
    "  - {path: template.so}\n"
    "train: {lr: 3.0e-3, max_steps: 1000, eval_every: 100, stop: {loss: 1.0e-3, patience: 3}}\n"
    "seeds: [1]\n"
    "device: cpu\n"
    "figures:\n"
    "  - {name: keys, kind: line, x: keys, y: best_eval_loss, series: variant, logy: true,\n"
    "     xlabel: \"number of keys S\", ylabel: \"best evaluation loss\"}\n";

/* What this harness has for those who write variants, in its source tree or where it is installed. */
typedef struct kit { char harness[PATH_MAX], source[PATH_MAX], include[PATH_MAX]; } kit;

/* 0, or -1 when the template or the header is in neither place. */
static int find_kit(kit *k)
{
    static const char *const places[][2] = { { "/../variants/TEMPLATE.c", "/../harness/attn.h" },
                                             { "/../share/harness/TEMPLATE.c", "/../include/harness/attn.h" } };
    char path[2 * PATH_MAX], self[PATH_MAX];
    if (!realpath("/proc/self/exe", self)) return -1;
    strcpy(k->harness, self);
    *strrchr(self, '/') = '\0';
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", self, places[i][0]);
        if (!realpath(path, k->source)) continue;
        snprintf(path, sizeof path, "%s%s", self, places[i][1]);
        if (!realpath(path, k->include)) continue;
        *strrchr(k->include, '/') = '\0';
        return 0;
    }
    return -1;
}

/* A whole file as a string, NULL with errno; the caller frees it. */
static char *read_text(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    if (getdelim(&text, &n, '\0', f) < 0) free(text), text = NULL;
    fclose(f);
    return text;
}

/* The text with every `word` replaced; the caller frees it. */
static char *replaced(const char *text, const char *word, const char *by)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    if (!f) return NULL;
    for (const char *hit; (hit = strstr(text, word)); text = hit + strlen(word))
        fprintf(f, "%.*s%s", (int)(hit - text), text, by);
    fputs(text, f);
    fclose(f);
    return out;
}

/* A path for the shell inside a Makefile: 'quoted', $ doubled and # escaped; the caller frees it. */
static char *quoted(const char *path)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    if (!f) return NULL;
    fputc('\'', f);
    for (; *path; path++)
        if (*path == '\'') fputs("'\\''", f);
        else fprintf(f, "%s%c", *path == '$' ? "$" : *path == '#' ? "\\" : "", *path);
    fputc('\'', f);
    fclose(f);
    return out;
}

/* Writes folder/file, the text with "template" replaced by name.  0, or -1 with errno. */
static int write_text(const char *folder, const char *file, const char *text, const char *name)
{
    char path[2 * PATH_MAX];
    char *own = replaced(text, "template", name);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = own ? fopen(path, "wx") : NULL;
    int rc = f && fputs(own, f) >= 0 ? 0 : -1;
    if (f && fclose(f)) rc = -1;
    free(own);
    return rc;
}

/* The Makefile's text, with the paths of this harness in it; the caller frees it. */
static char *own_makefile(const kit *k)
{
    char *harness = quoted(k->harness), *include = quoted(k->include);
    char *half = harness ? replaced(makefile, "%HARNESS%", harness) : NULL;
    char *whole = half && include ? replaced(half, "%INCLUDE%", include) : NULL;
    free(harness);
    free(include);
    free(half);
    return whole;
}

/* The three files; 0, or -1 with errno.  What was written stays for the caller to remove. */
static int write_all(const kit *k, const char *folder, const char *const file[3], const char *name)
{
    char *source = read_text(k->source), *make = own_makefile(k);
    int rc = source && make ? 0 : -1;
    if (!rc) rc = write_text(folder, file[0], source, name);
    if (!rc) rc = write_text(folder, file[1], make, name);
    if (!rc) rc = write_text(folder, file[2], experiment, name);
    free(source);
    free(make);
    return rc;
}

/* Makes the folder with all that is in it, or nothing.  0, or -1 after saying why. */
static int make_folder(const kit *k, const char *folder, const char *name)
{
    char source[LONGEST + 8], spec[LONGEST + 8], path[2 * PATH_MAX];
    const char *const file[3] = { source, "Makefile", spec };
    snprintf(source, sizeof source, "%s.c", name);
    snprintf(spec, sizeof spec, "%s.yaml", name);
    if (mkdir(folder, 0777)) {
        fprintf(stderr, "harness new: the folder %s cannot be made (%s)\n", folder, strerror(errno));
        return -1;
    }
    if (!write_all(k, folder, file, name)) return 0;
    fprintf(stderr, "harness new: %s cannot be filled (%s)\n", folder, strerror(errno));
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, file[i]);
        unlink(path);
    }
    rmdir(folder);
    return -1;
}

/* The file of the loaded variant of that name into out; 0 when there is one. */
static int find_taken(const char *name, char *out, size_t n)
{
    hs_catalog *c = hs_catalog_new(NULL, 0);
    const char *path = json_string_value(json_object_get(hs_catalog_variant(c, name), "path"));
    if (path) snprintf(out, n, "%s", path);
    hs_catalog_free(c);
    return path ? 0 : -1;
}

/* See command.h. */
int cmd_new(int argc, char **argv)
{
    const hs_command *self = hs_command_find("new");
    char complaint[PATH_MAX + 200], folder[PATH_MAX], taken[PATH_MAX];
    kit k;
    if (argc == 2 && !strcmp(argv[1], "-h")) return hs_usage(self, NULL);
    if (argc < 2 || argc > 3 || argv[1][0] == '-' || (argc == 3 && argv[2][0] == '-'))
        return hs_usage(self, "the name of the variant is expected, and perhaps the folder to put it in");
    const char *name = argv[1], *dir = argc == 3 ? argv[2] : "";
    if (!hs_name_valid(name, 0) || strlen(name) > LONGEST) {
        snprintf(complaint, sizeof complaint, "the name '%.80s' is not 1 to %d of a-z, 0-9 and _", name, LONGEST);
        return hs_usage(self, complaint);
    }
    if (!find_taken(name, taken, sizeof taken)) {
        snprintf(complaint, sizeof complaint, "there is a variant %s already: %s", name, taken);
        return hs_usage(self, complaint);
    }
    int n = (int)strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    snprintf(folder, sizeof folder, "%.*s%s%s", n, dir, n ? "/" : "", name);
    if (find_kit(&k)) {
        fprintf(stderr, "harness new: neither variants/TEMPLATE.c nor share/harness/TEMPLATE.c with attn.h is beside the program\n");
        return HS_EXIT_FAILED;
    }
    if (make_folder(&k, folder, name)) return HS_EXIT_FAILED;
    printf("%s holds %s.c (a working variant: make it yours), Makefile and %s.yaml.  Next:\n\n"
           "  cd %s\n"
           "  make check    # is it right?\n"
           "  make run      # how good is it?  against softmax and linear: plots/out/%s/keys.png\n", folder, name, name, folder, name);
    return HS_EXIT_OK;
}
