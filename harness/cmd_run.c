/* cmd_run.c - `harness run`: from an experiment file to results in the store. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "command.h"
#include "env.h"
#include "figure.h"
#include "plan.h"
#include "redraw.h"
#include "runner.h"
#include "store.h"

enum { WORDS_MAX = 64 };
typedef struct run_options {
    const char *file, *set[WORDS_MAX], *only[WORDS_MAX];
    hs_plan_args plan;
    hs_run_args run;
    int dry, json, strict;
    unsigned retry;                     /* statuses to compute again, a mask */
} run_options;

/* ---- the command line ------------------------------------------------------------------------------------- */

enum { OPT_SET = 1, OPT_ONLY, OPT_JOBS, OPT_DEVICE, OPT_DB, OPT_COLOR, OPT_RETRY };
static int dry_run, as_json, strict, quiet;
static const struct option long_options[] = {
    {"set", required_argument, NULL, OPT_SET}, {"only", required_argument, NULL, OPT_ONLY},
    {"jobs", required_argument, NULL, OPT_JOBS}, {"device", required_argument, NULL, OPT_DEVICE},
    {"db", required_argument, NULL, OPT_DB}, {"color", required_argument, NULL, OPT_COLOR},
    {"retry", required_argument, NULL, OPT_RETRY},
    {"dry-run", no_argument, &dry_run, 1}, {"json", no_argument, &as_json, 1}, {"strict", no_argument, &strict, 1},
    {"quiet", no_argument, &quiet, 1}, {"help", no_argument, NULL, 'h'}, {0}};

/* A number of jobs; -1 when the text is none. */
static int parse_jobs(const char *text)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    return *end || end == text || errno || n < 1 || n > 256 ? -1 : (int)n;
}

/* "timeout,oom" as a mask of statuses; 0 when a word is none. */
static unsigned parse_statuses(const char *text)
{
    unsigned mask = 0;
    for (size_t n; *text; text += n + (text[n] == ',')) {
        int status = 0;
        n = strcspn(text, ",");
        while (status < HS_STATUSES && (strlen(hs_status_names[status]) != n || strncmp(hs_status_names[status], text, n))) status++;
        if (status == HS_STATUSES) return 0;
        mask |= 1u << status;
    }
    return mask;
}

/* Takes one option; a complaint when it is wrong. */
static const char *take_option(run_options *o, int opt)
{
    switch (opt) {
    case OPT_SET:
        if (o->plan.nset == WORDS_MAX) return "too many --set";
        o->set[o->plan.nset++] = optarg;
        return NULL;
    case OPT_ONLY:
        if (o->plan.nonly == WORDS_MAX) return "too many --only";
        o->only[o->plan.nonly++] = optarg;
        return NULL;
    case OPT_JOBS: return (o->run.jobs = parse_jobs(optarg)) < 0 ? "--jobs wants a number from 1 to 256" : NULL;
    case OPT_RETRY: return (o->retry = parse_statuses(optarg)) ? NULL : "--retry wants statuses, like timeout,oom";
    case OPT_DEVICE: o->plan.device = optarg; return NULL;
    case OPT_DB: o->run.db = optarg; return NULL;
    case OPT_COLOR:
        if (!strcmp(optarg, "auto")) o->run.color = HS_COLOR_AUTO;
        else if (!strcmp(optarg, "always")) o->run.color = HS_COLOR_ALWAYS;
        else if (!strcmp(optarg, "never")) o->run.color = HS_COLOR_NEVER;
        else return "--color wants auto, always or never";
        return NULL;
    default: return NULL;
    }
}

/* Fills o; < 0 when the command goes on, else its exit code. */
static int parse(int argc, char **argv, run_options *o)
{
    const hs_command *me = hs_command_find("run");
    static char complaint[256];
    *o = (run_options){.plan = {.set = o->set, .only = o->only}};
    opterr = 0;
    optind = 0;
    for (int opt; (opt = getopt_long(argc, argv, ":hqj:", long_options, NULL)) != -1; ) {
        const char *wrong = NULL;
        if (opt == 'h') return hs_usage(me, NULL);
        if (opt == 'q') quiet = 1;
        else if (opt == 'j') wrong = take_option(o, OPT_JOBS);
        else if (opt == ':' || opt == '?') {
            snprintf(complaint, sizeof complaint, "%s %s", argv[optind - 1], opt == ':' ? "wants a value" : "is no option of this command");
            wrong = complaint;
        } else wrong = take_option(o, opt);
        if (wrong) return hs_usage(me, wrong);
    }
    if (argc - optind != 1) return hs_usage(me, argc == optind ? "which experiment file?" : "one experiment file at a time");
    o->file = argv[optind];
    if (!o->run.db) o->run.db = hs_store_default_path();
    o->run.file = o->file, o->run.plan_args = &o->plan;
    o->dry = dry_run, o->json = as_json, o->strict = strict, o->run.quiet = quiet;
    return -1;
}

/* ---- --dry-run ------------------------------------------------------------------------------------------------ */

/* Whether the store has the same question answered by other code. */
static int is_stale(hs_store *store, const hs_cell *c)
{
    sqlite3_stmt *ask;
    if (sqlite3_prepare_v2(hs_store_sql(store), "SELECT 1 FROM cell WHERE ident = ? AND key <> ? AND status NOT IN ('planned','running')", -1, &ask, NULL) != SQLITE_OK)
        return 0;
    sqlite3_bind_text(ask, 1, c->ident, -1, SQLITE_STATIC);
    sqlite3_bind_text(ask, 2, c->key, -1, SQLITE_STATIC);
    int found = sqlite3_step(ask) == SQLITE_ROW;
    sqlite3_finalize(ask);
    return found;
}

/* What a run would find: a status of the store, or "stale". */
static const char *standing(hs_store *store, const hs_cell *c, int *left)
{
    hs_cell_state s = {.status = HS_PLANNED};
    if (store && hs_store_state(store, c->key, &s) < 0) return "unknown";
    free(s.reason);
    *left = !hs_status_final(s.status);
    return s.status == HS_PLANNED && store && is_stale(store, c) ? "stale" : hs_status_names[s.status];
}

/* Prints the cells and how many a run would compute. */
static void print_cells(const run_options *o, const hs_plan *p, hs_store *store)
{
    json_t *cells = json_array();
    size_t left = 0;
    for (size_t i = 0; i < p->ncells; i++) {
        const hs_cell *c = &p->cell[i];
        char axes[512];
        int to_do = 1;
        const char *status = standing(store, c, &to_do);
        left += (size_t)to_do;
        hs_axes_text(c->axes, axes, sizeof axes);
        if (!o->json) printf("%.12s  %-11s  %s  %s\n", c->key, status, c->label, axes);
        else json_array_append_new(cells, json_pack("{s:s, s:s, s:s, s:O, s:O}", "key", c->key, "status", status, "label", c->label,
                                                    "axes", c->axes, "doc", c->doc));
    }
    if (!o->json) printf("%zu cells, %zu to compute\n", p->ncells, left);
    else {
        json_t *all = json_pack("{s:s, s:I, s:I, s:o}", "experiment", p->experiment, "cells", (json_int_t)p->ncells,
                                "to_compute", (json_int_t)left, "cell", cells);
        json_dumpf(all, stdout, JSON_INDENT(1));
        puts("");
        cells = all;
    }
    json_decref(cells);
}

static int dry(const run_options *o, const hs_plan *p)
{
    hs_store *store = NULL;
    char why[512] = "";
    if (access(o->run.db, F_OK) == 0 && hs_store_open(o->run.db, HS_STORE_READ, &store, why, sizeof why) < 0) {
        fprintf(stderr, "harness: %s\n", why);
        return HS_EXIT_STORE;
    }
    print_cells(o, p, store);
    if (store) hs_store_close(store);
    return HS_EXIT_OK;
}

/* ---- the summary ---------------------------------------------------------------------------------------------- */

/* One word of a command line, quoted when a shell would want it. */
static void print_word(FILE *f, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";
    if (*word && strspn(word, plain) == strlen(word)) { fprintf(f, " %s", word); return; }
    fputs(" '", f);
    for (; *word; word++) fputs(*word == '\'' ? "'\\''" : (char[]){*word, 0}, f);
    fputc('\'', f);
}

/* The command line that goes on where this run stopped: the same again. */
static void print_again(int argc, char **argv)
{
    fprintf(stderr, "to go on: %s", program_invocation_name);
    for (int i = 0; i < argc; i++) print_word(stderr, argv[i]);
    fputc('\n', stderr);
}

/* Why cells failed, the first few. */
static void print_failures(const hs_run_summary *s)
{
    for (size_t i = 0; i < s->nfailures && i < HS_FAILURES_KEPT; i++) {
        const hs_failure *f = &s->failure[i];
        char axes[512];
        hs_axes_text(f->cell->axes, axes, sizeof axes);
        fprintf(stderr, "  %s: %s %s: %s\n", hs_status_names[f->status], f->cell->label, axes, f->reason ? f->reason : "");
    }
    if (s->nfailures > HS_FAILURES_KEPT) fprintf(stderr, "  and %zu more\n", s->nfailures - HS_FAILURES_KEPT);
}

/* Counts for people: "10 done, 1 crashed". */
static void print_summary(const run_options *o, const hs_plan *p, const hs_run_summary *s)
{
    char seconds[16];
    const char *comma = "";
    hs_format_seconds(s->seconds, seconds, sizeof seconds);
    printf("%s: ", p->experiment);
    for (int i = 0; i < HS_STATUSES; i++)
        if (s->count[i]) { printf("%s%zu %s", comma, s->count[i], hs_status_names[i]); comma = ", "; }
    if (s->ended == 0 && s->had == p->ncells) printf("; nothing to compute: %s has every cell\n", o->run.db);
    else printf("; %zu computed in %s, %zu were there\n", s->ended, seconds, s->had);
    printf("results: harness show %s   SQL: sqlite3 %s 'SELECT * FROM v_cells'\n", o->file, o->run.db);
    fflush(stdout);
}

/* The same for machines. */
static void print_summary_json(const hs_plan *p, const hs_run_summary *s)
{
    json_t *status = json_object();
    for (int i = 0; i < HS_STATUSES; i++) if (s->count[i]) json_object_set_new(status, hs_status_names[i], json_integer((json_int_t)s->count[i]));
    json_t *all = json_pack("{s:s, s:o, s:I, s:I, s:f}", "experiment", p->experiment, "status", status, "had", (json_int_t)s->had,
                            "computed", (json_int_t)s->ended, "seconds", s->seconds);
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
}

/* The figures as the store has them now, of the whole experiment whatever --only left out.  Figures that fail are a
 * warning: the numbers are safe. */
static void draw_figures(const run_options *o, const hs_plan *p, hs_store *store, const hs_run_summary *s)
{
    const hs_plan_args shown = { .set = o->plan.set, .nset = o->plan.nset, .device = o->plan.device, .db = o->plan.db };
    hs_plan whole = { 0 };
    if (json_array_size(p->figures) == 0 || s->store_failed || s->signal) return;
    int rc = o->plan.nonly ? hs_plan_read(o->file, &shown, &whole) : HS_EXIT_OK;
    if (rc == HS_EXIT_OK)
        rc = hs_figures_draw(store, o->plan.nonly ? &whole : p, &shown, HS_PLOTS_OUT, o->json || o->run.quiet ? 0 : HS_FIGURES_VERBOSE);
    if (rc != HS_EXIT_OK) fprintf(stderr, "harness: warning: the figures could not be drawn; harness plot %s tries again\n", o->file);
    if (whole.file) hs_plan_release(&whole);
}

/* FIELD D1: results are success, however they look; --strict wants every cell done. */
static int exit_code(const run_options *o, const hs_plan *p, const hs_run_summary *s)
{
    if (s->store_failed) return HS_EXIT_STORE;
    if (s->signal) return 128 + s->signal;
    size_t timeouts = p->stop_longer ? 0 : s->count[HS_TIMEOUT];   /* else a sweep is meant to end in them */
    if (s->count[HS_CRASHED] || s->count[HS_WRONG] || timeouts || s->count[HS_PLANNED] || s->count[HS_INTERRUPTED])
        return HS_EXIT_FAILED;
    return o->strict && s->count[HS_DONE] < p->ncells ? HS_EXIT_FAILED : HS_EXIT_OK;
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

/* Opens the store and records what is about to be run and where. */
static int record(const run_options *o, const hs_plan *p, hs_store **store)
{
    char why[512] = "";
    if (hs_store_open(o->run.db, 0, store, why, sizeof why) < 0) {
        fprintf(stderr, "harness: %s\n", why);
        return -1;
    }
    json_t *env = hs_env_json();
    /* A wrong cell is judged anew: its verdict is at hand, unless the plug-in or the library has changed. */
    int rc = hs_store_environment(*store, env) < 0 || hs_store_plan(*store, p) < 0 ||
             hs_store_reopen(*store, p, o->retry | 1u << HS_WRONG) < 0 ? -1 : 0;
    if (rc < 0) fprintf(stderr, "harness: the experiment could not be recorded: %s\n", hs_store_error(*store));
    json_decref(env);
    return rc;
}

int cmd_run(int argc, char **argv)
{
    run_options o;
    hs_plan plan;
    hs_store *store = NULL;
    hs_run_summary sum = {0};
    int rc = parse(argc, argv, &o);
    if (rc >= 0) return rc;
    o.plan.db = o.run.db;
    if ((rc = hs_plan_read(o.file, &o.plan, &plan)) != HS_EXIT_OK) return rc;
    plan.partial = o.plan.nset > 0 || o.plan.nonly > 0;
    if (plan.no_gpu && !o.run.quiet) fprintf(stderr, "harness: on the CPU: %s\n", plan.no_gpu);
    if (plan.no_data && (!o.dry || !o.run.quiet)) fprintf(stderr, "%s: %s\n", plan.file, plan.no_data);
    if (o.dry) rc = dry(&o, &plan);
    else if (plan.no_data) rc = HS_EXIT_SPEC;
    else if (record(&o, &plan, &store) < 0) rc = HS_EXIT_STORE;
    else if (hs_run(store, &plan, &o.run, &sum) < 0) rc = HS_EXIT_FAILED;
    else {
        rc = exit_code(&o, &plan, &sum);
        if (o.json) print_summary_json(&plan, &sum);
        else if (!o.run.quiet) print_summary(&o, &plan, &sum);
        print_failures(&sum);
        draw_figures(&o, &plan, store, &sum);
        if (sum.signal || sum.store_failed) print_again(argc, argv);
    }
    hs_run_summary_release(&sum);
    if (store) hs_store_close(store);
    hs_plan_release(&plan);
    return rc;
}
