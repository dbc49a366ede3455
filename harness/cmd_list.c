/* cmd_list.c - `harness list [variants|tasks|experiments] [NAME] [--json]`: what there is, with every option. */
#include "command.h"
#include "nn/mixer.h"
#include "nn/model.h"
#include "nn/train.h"
#include "options.h"
#include "plan.h"
#include "spec.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100, HELP_COLUMN = 44 };

typedef struct request {
    int variants, tasks, experiments, as_json;
    const char *name;                   /* NULL: all, in short */
} request;

/* ---- printing ------------------------------------------------------------------------------------------------ */
/* A text from column `at` on, broken at blanks before WIDTH; the cursor is at `column` already. */
static void print_wrapped(const char *text, int column, int at)
{
    if (column + 1 > at) putchar('\n'), column = 0;
    printf("%*s", at - column, "");
    column = at;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column > at && column + 1 + word > WIDTH) column = at, printf("\n%*s", at, "");
        column += printf("%s%.*s", column > at ? " " : "", word, text);
        text += word + strspn(text + word, " ");
    }
    putchar('\n');
}

/* The text under a key, "" when there is none. */
static const char *text_of(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* "name = default   range" and the help. */
static void print_option(const json_t *option)
{
    const json_t *d = json_object_get(option, "default");
    char *dump = json_dumps(d, JSON_ENCODE_ANY), left[160], number[32];
    snprintf(number, sizeof number, "%.12g", json_number_value(d));
    const char *def = json_is_string(d) ? json_string_value(d) : json_is_number(d) ? number : dump;
    snprintf(left, sizeof left, "%s = %s", text_of(option, "name"), def);
    int column = printf("    %-24s %s", left, text_of(option, "range"));
    print_wrapped(text_of(option, "help"), column, HELP_COLUMN);
    free(dump);
}

/* A heading and the options of an array; nothing when it is empty. */
static void print_options(const char *heading, const json_t *options)
{
    size_t i;
    json_t *o;
    if (json_array_size(options)) printf("  %s\n", heading);
    json_array_foreach(options, i, o) {
        print_option(o);
    }
}

/* Names in an array of strings, "f32, f64". */
static void print_names(const json_t *names)
{
    size_t i;
    json_t *n;
    json_array_foreach(names, i, n) {
        printf("%s%s", i ? ", " : "", json_string_value(n));
    }
}

/* Rows of {name, help}: gates, params, states. */
static void print_rows(const char *heading, const json_t *rows)
{
    size_t i;
    json_t *row;
    if (json_array_size(rows)) printf("  %s\n", heading);
    json_array_foreach(rows, i, row) {
        int column = printf("    %s", text_of(row, "name"));
        if (json_array_size(json_object_get(row, "flags"))) {
            printf(" (");
            print_names(json_object_get(row, "flags"));
            printf(")");
            column = WIDTH;             /* the help has a line of its own */
        }
        print_wrapped(text_of(row, "help"), column, HELP_COLUMN);
    }
}

/* "name     Title (paper)". */
static void print_head(const json_t *one)
{
    printf("%-24s %s", text_of(one, "name"), text_of(one, "title"));
    if (*text_of(one, "paper")) printf(" (%s)", text_of(one, "paper"));
    putchar('\n');
}

/* All of a variant. */
static void print_variant(const json_t *v)
{
    size_t i;
    json_t *impl, *common = hs_opts_describe(nn_common_table);
    print_head(v);
    if (*text_of(v, "cost")) printf("  cost        %s\n", text_of(v, "cost"));
    printf("  file        %s\n", text_of(v, "path"));
    print_options("options", json_object_get(v, "options"));
    print_options("options of every variant", common);
    print_rows("gates", json_object_get(v, "gates"));
    print_rows("params", json_object_get(v, "params"));
    print_rows("states", json_object_get(v, "states"));
    puts("  implementations");
    json_array_foreach(json_object_get(v, "impls"), i, impl) {
        printf("    %-12s %-5s rank %-3d ", text_of(impl, "name"), text_of(impl, "device"),
               (int)json_integer_value(json_object_get(impl, "rank")));
        print_names(json_object_get(impl, "dtypes"));
        printf("; ");
        print_names(json_object_get(impl, "modes"));
        printf("%s%s\n", json_is_true(json_object_get(impl, "trains")) ? "; trains" : "",
               json_is_true(json_object_get(impl, "decodes")) ? "; decodes" : "");
    }
    json_decref(common);
}

/* The training or model options with the task's own defaults in place of the table's. */
static void print_section(const char *head, const attn_opt *table, const json_t *own)
{
    json_t *options = hs_opts_describe(table), *o;
    size_t i;
    json_array_foreach(options, i, o) {
        const char *value = json_string_value(json_object_get(own, text_of(o, "name")));
        if (value) json_object_set_new(o, "default", hs_scalar_json(value));
    }
    print_options(head, options);
    json_decref(options);
}

/* All of a task. */
static void print_task(const json_t *t)
{
    size_t i;
    json_t *m;
    const json_t *model = json_object_get(t, "model_defaults");
    print_head(t);
    printf("  file        %s\n", text_of(t, "path"));
    print_options("options", json_object_get(t, "options"));
    if (json_is_object(model)) print_section("options of model:", nn_model_table, model);
    print_section("options of train:", nn_train_table, json_object_get(t, "train_defaults"));
    puts("  metrics");
    json_array_foreach(json_object_get(t, "metrics"), i, m) {
        int better = (int)json_integer_value(json_object_get(m, "better"));
        const char *unit = text_of(m, "unit");
        int column = printf("    %-18s %-5s %s", text_of(m, "name"), strcmp(unit, "1") ? unit : "",
                            better < 0 ? "less is better" : better ? "more is better" : "");
        print_wrapped(text_of(m, "help"), column, HELP_COLUMN);
    }
}

/* ---- experiments ------------------------------------------------------------------------------------------------- */
/* scandir's filter. */
static int is_yaml(const struct dirent *d)
{
    const char *dot = strrchr(d->d_name, '.');
    return d->d_name[0] != '.' && dot && !strcmp(dot, ".yaml");
}

/* One experiment file: its name, number of cells and what it is about; files with errors say so. */
static json_t *describe_experiment(const char *path, hs_catalog *c)
{
    hs_plan plan;
    char *errors = NULL;
    size_t size;
    FILE *out = open_memstream(&errors, &size);
    json_t *one = json_pack("{s:s, s:s}", "kind", "experiment", "file", path);
    if (out && !hs_plan_read_with(path, NULL, hs_catalog_keep(c), out, &plan)) {
        json_object_set_new(one, "name", json_string(plan.experiment));
        json_object_set_new(one, "about", json_string(plan.about));
        json_object_set_new(one, "cells", json_integer((json_int_t)plan.ncells));
        hs_plan_release(&plan);
    }
    if (out) fclose(out);
    if (errors && *errors) json_object_set_new(one, "errors", json_string(errors));
    free(errors);
    return one;
}

/* The files of experiments/. */
static json_t *describe_experiments(hs_catalog *c)
{
    json_t *list = json_array();
    struct dirent **entry;
    int n = scandir("experiments", &entry, is_yaml, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "experiments/%s", entry[i]->d_name);
        json_array_append_new(list, describe_experiment(path, c));
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    return list;
}

/* One line per experiment. */
static void print_experiments(const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one) {
        const char *errors = json_string_value(json_object_get(one, "errors"));
        int column = printf("  %-36s %6lld cells  ", text_of(one, "file"),
                            (long long)json_integer_value(json_object_get(one, "cells")));
        print_wrapped(errors ? "has errors" : text_of(one, "about"), column, HELP_COLUMN + 10);
        if (errors) fputs(errors, stderr);
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------- */
/* Is this description asked for? */
static int wanted(const request *r, const json_t *one)
{
    const char *kind = text_of(one, "kind");
    if (r->name && strcmp(r->name, text_of(one, "name"))) return 0;
    return !strcmp(kind, "variant") ? r->variants : !strcmp(kind, "task") ? r->tasks : r->experiments;
}

/* Everything that is asked for, as an array.  Experiments are planned to count their cells, so they come last. */
static json_t *collect(const request *r, hs_catalog *c)
{
    json_t *list = json_array(), *one;
    size_t i;
    json_array_foreach(hs_catalog_all(c), i, one) {
        if (wanted(r, one)) json_array_append(list, one);
    }
    if (!r->experiments || (r->name && json_array_size(list))) return list;
    json_t *experiments = describe_experiments(c);
    json_array_foreach(experiments, i, one) {
        if (wanted(r, one)) json_array_append(list, one);
    }
    json_decref(experiments);
    return list;
}

/* Variants, tasks and experiments under headings. */
static void print_all(const json_t *list)
{
    static const char *const kinds[] = { "variant", "task", "experiment" };
    for (int k = 0; k < 3; k++) {
        json_t *of_kind = json_array(), *one;
        size_t i;
        json_array_foreach(list, i, one) {
            if (!strcmp(text_of(one, "kind"), kinds[k])) json_array_append(of_kind, one);
        }
        if (json_array_size(of_kind)) printf("%s%ss\n", json_array_get(list, 0) == json_array_get(of_kind, 0) ? "" : "\n", kinds[k]);
        if (k == 2) print_experiments(of_kind);
        else json_array_foreach(of_kind, i, one) {
            if (i) putchar('\n');
            if (k == 0) print_variant(one);
            else print_task(one);
        }
        json_decref(of_kind);
    }
}

/* Reads the arguments; NULL, or what is wrong with them. */
static const char *parse(int argc, char **argv, request *r)
{
    int kinds = 0;
    for (int i = 1; i < argc; i++) {
        int *kind = !strcmp(argv[i], "variants") ? &r->variants : !strcmp(argv[i], "tasks") ? &r->tasks
                  : !strcmp(argv[i], "experiments") ? &r->experiments : NULL;
        if (!strcmp(argv[i], "--json")) r->as_json = 1;
        else if (argv[i][0] == '-') return "an option that is not known";
        else if (kind && !r->name) *kind = 1, kinds++;
        else if (!r->name) r->name = argv[i];
        else return "one name is expected";
    }
    if (!kinds) r->variants = r->tasks = r->experiments = 1;
    return NULL;
}

/* Says that there is nothing of that name. */
static int refuse_name(const request *r, const hs_catalog *c)
{
    const char *names[512];
    size_t n = 0, i;
    json_t *one;
    json_array_foreach(hs_catalog_all(c), i, one) {
        if (n < 512) names[n++] = text_of(one, "name");
    }
    const char *near = hs_nearest(r->name, names, n);
    fprintf(stderr, "harness list: there is no '%s'%s%s%s\n", r->name, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    return HS_EXIT_USAGE;
}

/* See command.h.  Plug-ins that were refused are told on stderr, and leave the exit code alone. */
int cmd_list(int argc, char **argv)
{
    const hs_command *self = hs_command_find("list");
    request r = { 0 };
    if (argc == 2 && !strcmp(argv[1], "-h")) return hs_usage(self, NULL);
    const char *complaint = parse(argc, argv, &r);
    if (complaint) return hs_usage(self, complaint);
    hs_catalog *c = hs_catalog_new(NULL, 0);
    json_t *list = collect(&r, c), *one;
    size_t i;
    int rc = HS_EXIT_OK;
    if (r.name && !json_array_size(list)) rc = refuse_name(&r, c);
    else if (r.as_json) json_dumpf(list, stdout, JSON_INDENT(2)), putchar('\n');
    else print_all(list);
    json_array_foreach(hs_catalog_refused(c), i, one) {
        fprintf(stderr, "refused: %s\n", text_of(one, "reason"));
    }
    json_decref(list);
    hs_catalog_free(c);
    return rc;
}
