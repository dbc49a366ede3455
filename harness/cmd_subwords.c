/* cmd_subwords.c - `harness subwords`: learns units from text, splits lines into them and joins them again. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../tasks/data/subwords.h"
#include "command.h"
#include "plan.h"

enum { OPT_VOCABULARY = 256, OPT_KIND, OPT_COVERAGE, OPT_SENTENCES };
static const struct option long_options[] = {
    { "vocabulary", required_argument, NULL, OPT_VOCABULARY }, { "kind", required_argument, NULL, OPT_KIND },
    { "coverage", required_argument, NULL, OPT_COVERAGE }, { "sentences", required_argument, NULL, OPT_SENTENCES },
    { "help", no_argument, NULL, 'h' }, { 0 } };

/* Takes one option; a complaint when its value is wrong. */
static const char *take(subwords_training *t, int opt)
{
    char *end = NULL;
    switch (opt) {
    case OPT_VOCABULARY:
        t->vocabulary = (int)strtol(optarg, &end, 10);
        return *end || t->vocabulary < 8 || t->vocabulary > 1000000 ? "wants a number of units from 8 to 1000000" : NULL;
    case OPT_KIND:
        t->kind = optarg;
        return strcmp(optarg, "bpe") && strcmp(optarg, "unigram") ? "wants bpe or unigram" : NULL;
    case OPT_COVERAGE:
        t->coverage = strtod(optarg, &end);
        return *end || !(t->coverage > 0.5 && t->coverage <= 1) ? "wants a share of the characters, such as 0.9995" : NULL;
    default:
        t->sentences = strtoll(optarg, &end, 10);
        return *end || t->sentences < 0 ? "wants a number of sentences" : NULL;
    }
}

/* Reads the options.  Negative: go on, else the exit code. */
static int parse(subwords_training *t, int argc, char **argv)
{
    const hs_command *self = hs_command_find("subwords");
    char complaint[256];
    *t = (subwords_training){ .vocabulary = 32000, .kind = "bpe", .coverage = 1 };
    opterr = 0;
    optind = 0;
    for (int opt; (opt = getopt_long(argc, argv, ":h", long_options, NULL)) != -1;) {
        if (opt == 'h') return hs_usage(self, NULL);
        const char *wrong = opt == ':' ? "wants a value" : opt == '?' ? "is no option of this command" : take(t, opt);
        if (!wrong) continue;
        snprintf(complaint, sizeof complaint, "%s %s", argv[optind - 1], wrong);
        return hs_usage(self, complaint);
    }
    return -1;
}

/* Says what failed. */
static int fail(const char *why)
{
    fprintf(stderr, "harness subwords: %s\n", why);
    return HS_EXIT_FAILED;
}

/* Standard input to standard output, line by line. */
static int filter(const char *path, char *(*work)(const subwords *, const char *))
{
    char why[512];
    subwords *s = subwords_open(path, why, sizeof why);
    char *line = NULL;
    size_t room = 0;
    long number = 0;
    int rc = s ? HS_EXIT_OK : fail(why);
    for (ssize_t n; rc == HS_EXIT_OK && (n = getline(&line, &room, stdin)) >= 0;) {
        number++;
        line[strcspn(line, "\n")] = '\0';
        char *out = strlen(line) + 1 >= (size_t)n ? work(s, line) : NULL;
        snprintf(why, sizeof why, "standard input:%ld: not UTF-8 without NUL", number);
        rc = out ? puts(out) < 0 ? fail("standard output: cannot write") : HS_EXIT_OK : fail(why);
        free(out);
    }
    free(line);
    subwords_close(s);
    return rc;
}

/* See command.h. */
int cmd_subwords(int argc, char **argv)
{
    const hs_command *self = hs_command_find("subwords");
    subwords_training t;
    char why[512];
    int rc = parse(&t, argc, argv);
    if (rc >= 0) return rc;
    int n = argc - optind;
    const char *what = n > 0 ? argv[optind] : "", *model = n > 1 ? argv[optind + 1] : NULL;
    if (!strcmp(what, "split") && n == 2) return filter(model, subwords_split);
    if (!strcmp(what, "join") && n == 2) return filter(model, subwords_join);
    if (strcmp(what, "learn") || n < 3) return hs_usage(self, "wanted: learn MODEL FILE..., split MODEL or join MODEL");
    t.file = (const char *const *)&argv[optind + 2];
    t.nfiles = n - 2;
    return subwords_train(&t, model, why, sizeof why) ? fail(why) : HS_EXIT_OK;
}
