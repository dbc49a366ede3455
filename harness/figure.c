/* figure.c - checking a figure's map, and drawing: collect, write, gnuplot, rename into place. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "figure_internal.h"
#include "options.h"

extern char **environ;

typedef struct key { const char *name; json_type type; const char *expected; } key;
static const key keys[] = {
    { "kind", JSON_STRING, "line, curve, scaling or pareto" }, { "x", JSON_STRING, "the name of an axis or an option" },
    { "y", JSON_STRING, "the name of a metric" }, { "series", JSON_STRING, "the name of an axis" },
    { "name", JSON_STRING, "a name for the files" }, { "title", JSON_STRING, "a text" }, { "xlabel", JSON_STRING, "a text" },
    { "ylabel", JSON_STRING, "a text" }, { "logx", JSON_TRUE, "true or false" }, { "logy", JSON_TRUE, "true or false" },
    { "xmax", JSON_REAL, "a number" }, { "ymax", JSON_REAL, "a number" }, { "ymin", JSON_REAL, "a number" }, { "published", JSON_STRING, "the path of a CSV" },
    { "where", JSON_OBJECT, "a map, as in {phase: forward}" }, { "each", JSON_STRING, "the name of an axis" },
    { "best", JSON_STRING, "the name of an axis" },
    { "baseline", JSON_STRING, "the name of a series" }, { "bars", JSON_STRING, "quantiles or interval" },
    { "fit", JSON_TRUE, "true or false" }, { "reference", JSON_ARRAY, "a list of slopes, as in [1, 2]" } };
enum { KEYS = sizeof keys / sizeof *keys };

/* Whether a value has a key's type; true stands for both booleans, a real for any number. */
static int fits(const json_t *v, json_type type)
{
    return type == JSON_TRUE ? json_is_boolean(v) : type == JSON_REAL ? json_is_number(v) : json_typeof(v) == type;
}

/* Whether a list, or none, holds numbers alone. */
static int are_numbers(const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one) {
        if (!json_is_number(one)) return 0;
    }
    return 1;
}

/* What a kind needs, and what only one of them takes. */
static int check_kind(const json_t *figure, char *why, size_t nwhy)
{
    const char *name = json_string_value(json_object_get(figure, "kind")), *bars = json_string_value(json_object_get(figure, "bars"));
    enum fig_kind kind = fig_kind_of(figure);
    const char *foreign = kind == FIG_SCALING ? NULL : fig_baseline(figure) ? "baseline" : bars ? "bars" :
                          json_object_get(figure, "fit") ? "fit" : json_object_get(figure, "reference") ? "reference" : NULL;
    int has_x = json_object_get(figure, "x") != NULL;
    if (kind == FIG_KINDS)
        snprintf(why, nwhy, "the kind of a figure is line, curve, scaling or pareto%s%s%s", name ? ", not '" : "", name ? name : "",
                 name ? "'" : "");
    else if (!fig_y(figure)) snprintf(why, nwhy, "a figure needs y, the name of a metric");
    else if (kind == FIG_LINE && !has_x) snprintf(why, nwhy, "a figure of kind line needs x, an axis or an option");
    else if (kind == FIG_PARETO && !has_x) snprintf(why, nwhy, "a figure of kind pareto needs x, the metric of the cost");
    else if (foreign) snprintf(why, nwhy, "'%s' belongs to figures of kind scaling", foreign);
    else if (kind != FIG_LINE && json_object_get(figure, "best")) snprintf(why, nwhy, "'best' belongs to figures of kind line");
    else if (bars && strcmp(bars, "quantiles") != 0 && strcmp(bars, "interval") != 0)
        snprintf(why, nwhy, "'bars' of a figure should be quantiles or interval, not '%s'", bars);
    else if (!are_numbers(json_object_get(figure, "reference")))
        snprintf(why, nwhy, "'reference' of a figure should be a list of slopes, as in [1, 2]");
    else return 0;
    return -1;
}

int hs_figure_check(const json_t *figure, char *why, size_t nwhy)
{
    const char *names[KEYS], *name;
    json_t *value;
    for (int i = 0; i < KEYS; i++) names[i] = keys[i].name;
    json_object_foreach((json_t *)figure, name, value) {
        int i = 0;
        while (i < KEYS && strcmp(keys[i].name, name) != 0) i++;
        const char *near = hs_nearest(name, names, KEYS);
        if (i == KEYS)
            snprintf(why, nwhy, "a figure has no '%s'%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
                     near ? "'?" : "");
        else if (!fits(value, keys[i].type))
            snprintf(why, nwhy, "'%s' of a figure should be %s", name, keys[i].expected);
        else
            continue;
        return -1;
    }
    return check_kind(figure, why, nwhy);
}

FILE *fig_template(const char *name, char *why, size_t nwhy)
{
    char self[3072] = "", path[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;
    if (slash) *slash = '\0';
    const char *const below[] = { "/../plots", "/../share/harness/plots" };
    const char *own = getenv("HARNESS_PLOTS");
    FILE *f = NULL;
    if (own) {
        snprintf(path, sizeof path, "%s/%s", own, name);
        f = fopen(path, "r");
    }
    for (int i = 0; !f && !own && i < 2; i++) {
        snprintf(path, sizeof path, "%s%s/%s", self, below[i], name);
        f = fopen(path, "r");
    }
    if (!f && !own) {
        snprintf(path, sizeof path, "plots/%s", name);
        f = fopen(path, "r");
    }
    if (!f) snprintf(why, nwhy, "the template %s was not found: say where with HARNESS_PLOTS=folder", name);
    return f;
}

int fig_make_folder(const char *path)
{
    char *copy = strdup(path);
    int rc = copy ? 0 : -1;
    for (char *slash = copy; rc == 0 && slash;) {
        slash = strchr(slash + 1, '/');
        if (slash) *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) rc = -1;
        if (slash) *slash = '/';
    }
    free(copy);
    return rc;
}

/* Runs gnuplot on the script in dir; what it prints goes to a file there.  Its exit status, 127 when there is none. */
static int run_gnuplot(const char *dir, const char *script)
{
    char *const argv[] = { "gnuplot", "-d", (char *)script, NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "messages", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc != 0) return 127;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* The first line that says something, of a file. */
static void first_line(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "r");
    *out = '\0';
    while (f && fgets(out, (int)n, f) && strspn(out, " \t\n^") == strlen(out)) {}
    out[strcspn(out, "\n")] = '\0';
    if (f) fclose(f);
}

/* Moves a figure's files from its workshop into place, and clears the workshop. */
static void move_files(const char *from, const char *to, const char *name)
{
    static const char *const suffix[] = { ".tsv", ".gp", ".pdf", ".png", ".svg", "-slopes.csv", "-slopes.md", "-slopes.tex" };
    char a[4096], b[4096];
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        snprintf(a, sizeof a, "%s/%s%s", from, name, suffix[i]);
        snprintf(b, sizeof b, "%s/%s%s", to, name, suffix[i]);
        struct stat st;                 /* gnuplot that fails leaves empty files */
        if (stat(a, &st) != 0 || st.st_size == 0 || rename(a, b) != 0) unlink(a);
    }
    snprintf(a, sizeof a, "%s/messages", from);
    unlink(a);
    rmdir(from);
}

int fig_in_workshop(const char *dir, const char *name, fig_write_fn *write, const void *ctx, int *gnuplot, char *why, size_t nwhy)
{
    char shop[3072], path[4096];
    snprintf(shop, sizeof shop, "%s/.%s.XXXXXX", dir, name);
    if (!mkdtemp(shop)) {
        snprintf(why, nwhy, "%s cannot be written (%s)", dir, strerror(errno));
        return -1;
    }
    snprintf(path, sizeof path, "%s.gp", name);
    int rc = write(ctx, shop, why, nwhy);
    int status = rc == 0 ? run_gnuplot(shop, path) : 0;
    *gnuplot = status != 127;
    if (rc != 0 && !*why) snprintf(why, nwhy, "%s cannot be written (%s)", dir, strerror(errno));
    if (rc == 0 && status != 0 && status != 127) {
        char said[256];
        snprintf(path, sizeof path, "%s/messages", shop);
        first_line(path, said, sizeof said);
        snprintf(why, nwhy, "gnuplot failed on %s/%s.gp: %s", dir, name, said);
        rc = -1;
    }
    move_files(shop, dir, name);
    return rc;
}

/* fig_write_fn: a collected figure. */
static int write_files(const void *f, const char *shop, char *why, size_t nwhy)
{
    const fig *figure = f;
    return fig_write_tsv(figure, shop) == 0 && (figure->kind != FIG_SCALING || fig_write_table(figure, shop) == 0)
         ? fig_write_script(figure, shop, why, nwhy) : -1;
}

/* What was drawn, on stdout. */
static void report(const fig *f, const char *dir, int gnuplot)
{
    printf("%s/%s.%s", dir, f->name, gnuplot ? "pdf, .png, .svg" : "gp and .tsv (there is no gnuplot to draw them)");
    if (f->missing) printf("  %zu of %zu cells missing", f->missing, f->cells);
    if (f->nmarks) printf("  %zu ended otherwise", f->nmarks);
    if (f->dropped) printf("  %zu values not shown", f->dropped);
    putchar('\n');
}

/* One figure: collected, drawn, reported.  0, or -1 after a sentence. */
static int draw_one(hs_store *store, const hs_plan *plan, const json_t *spec, size_t number, const char *dir, int flags)
{
    char why[4096] = "";
    int gnuplot = 1;
    fig f;
    int rc = fig_collect(&f, store, plan, spec, number, why, sizeof why);
    if (rc == 0 && (flags & HS_FIGURES_PUBLISHED)) rc = fig_published(&f, plan, why, sizeof why);
    if (rc == 0) {
        fig_measure(&f);
        fig_fit(&f);
        rc = fig_in_workshop(dir, f.name, write_files, &f, &gnuplot, why, sizeof why);
    }
    if (rc != 0) fprintf(stderr, "harness: %s\n", why);
    else if (flags & HS_FIGURES_VERBOSE) report(&f, dir, gnuplot);
    fig_release(&f);
    return rc;
}

/* Appends "-set-task.keys_20" for every word. */
static void print_words(FILE *out, const char *option, const char *const *word, size_t n)
{
    for (size_t i = 0; i < n; i++) fprintf(out, "-%s-%s", option, word[i]);
}

/* The folder of a plan's figures; a narrowed one's is named after what narrowed it, with a digest of that, because a safe
 * name is not always another one. */
static void folder_of(const hs_plan *plan, const hs_plan_args *narrowed, const char *outdir, char *dir, size_t n)
{
    char name[80], digest[65], edits[80], *text = NULL;
    size_t size;
    fig_safe_name(plan->experiment, name);
    snprintf(dir, n, "%s/%s", outdir, name);
    FILE *out = narrowed && narrowed->nset + narrowed->nonly ? open_memstream(&text, &size) : NULL;
    if (!out) return;
    print_words(out, "set", narrowed->set, narrowed->nset);
    print_words(out, "only", narrowed->only, narrowed->nonly);
    fclose(out);
    SHA256Data((const uint8_t *)text, strlen(text), digest);
    fig_safe_name(text + 1, edits);
    snprintf(dir, n, "%s/%s/%s-%.8s", outdir, name, edits, digest);
    free(text);
}

int hs_figures_draw(hs_store *store, const hs_plan *plan, const hs_plan_args *narrowed, const char *outdir, int flags)
{
    char dir[2048];
    int rc = 0;
    folder_of(plan, narrowed, outdir, dir, sizeof dir);
    if (fig_make_folder(dir) != 0) {
        fprintf(stderr, "harness: the folder %s cannot be made (%s): name another with --out\n", dir, strerror(errno));
        return -1;
    }
    for (size_t i = 0; i < json_array_size(plan->figures); i++) {
        json_t *each = fig_each(plan, json_array_get(plan->figures, i), i + 1);
        for (size_t k = 0; k < json_array_size(each); k++)
            rc |= draw_one(store, plan, json_array_get(each, k), i + 1, dir, flags);
        json_decref(each);
    }
    return rc;
}
