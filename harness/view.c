/* view.c - what the commands that read share. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "command.h"
#include "view.h"

enum { OPT_DB = 256, OPT_SET, OPT_ONLY, OPT_METRIC, OPT_OUT, OPT_PUBLISHED, OPT_FORMAT };   /* OPT_FORMAT + enum hs_format */
static const struct option long_options[] = {
    { "db", required_argument, NULL, OPT_DB }, { "set", required_argument, NULL, OPT_SET },
    { "only", required_argument, NULL, OPT_ONLY }, { "metric", required_argument, NULL, OPT_METRIC },
    { "out", required_argument, NULL, OPT_OUT }, { "published", no_argument, NULL, OPT_PUBLISHED },
    { "csv", no_argument, NULL, OPT_FORMAT + HS_CSV }, { "json", no_argument, NULL, OPT_FORMAT + HS_JSON },
    { "markdown", no_argument, NULL, OPT_FORMAT + HS_MARKDOWN }, { "latex", no_argument, NULL, OPT_FORMAT + HS_LATEX },
    { "help", no_argument, NULL, 'h' }, { 0 } };

/* Whether the command takes this option. */
static int is_taken(int opt, int takes)
{
    if (opt == OPT_METRIC) return takes & HS_VIEW_METRIC;
    if (opt == OPT_OUT || opt == OPT_PUBLISHED) return takes & HS_VIEW_OUT;
    if (opt == OPT_FORMAT + HS_JSON) return takes & (HS_VIEW_JSON | HS_VIEW_FORMAT);
    if (opt > OPT_FORMAT) return takes & HS_VIEW_FORMAT;
    return 1;
}

/* Appends a word; 0 when there is no room. */
static int append(const char **word, size_t *n, const char *text)
{
    if (*n == HS_VIEW_WORDS) return 0;
    word[(*n)++] = text;
    return 1;
}

/* Takes one option; 0 when there are too many of its kind. */
static int take(hs_view *v, int opt)
{
    switch (opt) {
    case OPT_DB: v->db = optarg; return 1;
    case OPT_OUT: v->out = optarg; return 1;
    case OPT_PUBLISHED: v->published = 1; return 1;
    case OPT_SET: return append(v->set, &v->nset, optarg);
    case OPT_ONLY: return append(v->only, &v->nonly, optarg);
    case OPT_METRIC: return append(v->metric, &v->nmetrics, optarg);
    default: v->format = (enum hs_format)(opt - OPT_FORMAT); return 1;
    }
}

int hs_view_parse(hs_view *v, int argc, char **argv, int takes)
{
    const hs_command *self = hs_command_find(argv[0]);
    char complaint[256];
    *v = (hs_view){ .out = "plots/out", .format = HS_TEXT };
    opterr = 0;
    optind = 0;
    for (int opt; (opt = getopt_long(argc, argv, ":h", long_options, NULL)) != -1;) {
        if (opt == 'h') return hs_usage(self, NULL);
        const char *wrong = opt == ':' ? "wants a value" : opt == '?' || !is_taken(opt, takes) ? "is no option of this command"
                          : take(v, opt) ? NULL : "is given too often";
        if (!wrong) continue;
        snprintf(complaint, sizeof complaint, "%s %s", argv[optind - 1], wrong);
        return hs_usage(self, complaint);
    }
    if (argc - optind != 1) return hs_usage(self, argc == optind ? "which experiment?" : "one experiment at a time");
    v->file = argv[optind];
    if (!v->db) v->db = hs_store_default_path();
    return -1;
}

int hs_view_plan(hs_view *v)
{
    return hs_plan_read(v->file, &(hs_plan_args){ .set = v->set, .only = v->only, .nset = v->nset, .nonly = v->nonly, .db = v->db }, &v->plan);
}

int hs_view_store(hs_view *v, int may_lack)
{
    char why[640];
    if (may_lack && access(v->db, F_OK) != 0) return HS_EXIT_OK;
    if (hs_store_open(v->db, HS_STORE_READ, &v->store, why, sizeof why) == 0) return HS_EXIT_OK;
    fprintf(stderr, "harness: %s\n", why);
    return HS_EXIT_STORE;
}

void hs_view_release(hs_view *v)
{
    if (v->plan.file) hs_plan_release(&v->plan);
    hs_store_close(v->store);
}
