/* command.c - the table of commands: help, dispatch and typos come from it. */
#include "command.h"
#include "options.h"
#include "plan.h"
#include <stdio.h>
#include <string.h>

static const hs_command commands[] = {
    { "run", cmd_run, "FILE [--dry-run] [--set PATH=VALUE] [--only AXIS=VALUE] [--jobs N] [--device D] [--db F]"
      " [--retry STATUS,...] [--strict] [--json] [--quiet] [--color auto|always|never]",
      "run every cell of an experiment file that the store does not have yet" },
    { "status", cmd_status, "FILE [--set PATH=VALUE] [--only AXIS=VALUE] [--json] [--db F]",
      "say what is done, what is left and what is stale, and why" },
    { "show", cmd_show, "FILE|NAME [--metric M]... [--set PATH=VALUE] [--only AXIS=VALUE] [--csv|--json|--markdown|--latex] [--db F]",
      "print one row per cell: its axes, status, reason and metrics" },
    { "plot", cmd_plot, "FILE [--set PATH=VALUE] [--only AXIS=VALUE] [--published] [--out DIR] [--db F]",
      "draw the figures of an experiment: .pdf .png .svg, with .tsv and .gp" },
    { "compare", cmd_compare, "A B [--metric M] [--threshold PERCENT] [--across-machines] [--csv|--json|--markdown|--latex] [--db F]",
      "hold two databases, experiments or commits against each other: SAME, FASTER, SLOWER, AMBIGUOUS" },
    { "list", cmd_list, "[variants|tasks|experiments] [NAME] [--json]",
      "what there is: every option with its default, range and meaning" },
    { "env", cmd_env, "[--json]", "describe this machine and this build" },
    { "check", cmd_check, "FILE.so... [--device D] [--variant NAME] [--impl NAME] [--dtype f64|f32|bf16] [--options 'NAME=VALUE...']"
      " [--only-options] [--defaults] [--once] [--quick] [--limit SECONDS] [--verbose] [--tap|--json|--table]", "is it right? reference, gradients, causality, decode, layouts, guards" },
    { "new", cmd_new, "NAME [DIR]", "make a folder NAME with a variant that works, its Makefile and an experiment" },
    { "apply", cmd_apply, "VARIANT --q q.npy --k k.npy --v v.npy --mode MODE --impl NAME --out DIR [option=value...]",
      "run one variant on your own NPY tensors" },
    { "sample", cmd_sample, "EXPERIMENT|KEY|FILE.safetensors [--only AXIS=VALUE] [--prompt TEXT] [--length N] [--number N] [--seed N]"
      " [--temperature X] [--top-k N] [--top-p X] [--by states|windows]"
      " [--complete [--split NAME] [--from N] [--out DIR]] [--json] [--device D] [--threads N] [--db F]",
      "let a kept language model go on with a text, or one of images with halves of images" },
    { "attend", cmd_attend, "EXPERIMENT|KEY|FILE.safetensors [--only AXIS=VALUE] [--layer L] [--head H] [--text TEXT | --split NAME --from N]"
      " [--length N] [--by map|values] [--similarity [--sequences N]] [--out DIR] [--device D] [--threads N] [--db F]",
      "show what the heads of a kept model look at, as .npy and picture" },
    { "bleu", cmd_bleu, "HYP REF... [--tokenize 13a|intl|none] [--lowercase] [--smooth exp|floor|none] [--effective-order]"
      " [--bootstrap N] [--against HYP] [--seed N] [--json]", "score a translation as sacreBLEU does, with its signature; - reads standard input" },
    { "subwords", cmd_subwords, "learn MODEL FILE... [--vocabulary N] [--kind bpe|unigram] [--coverage SHARE] [--sentences N]\n"
      "       harness subwords split|join MODEL <in >out", "learn subword units with sentencepiece, apply them or subword-nmt's codes, undo them" },
    { "data", cmd_data, "list [NAME] [--json|--csv] | get NAME [--mirror URL] [--from FOLDER] | prepare NAME [--from FOLDER]..."
      " [--level words|bytes] [--min-count N] [--limit TOKENS] [--subwords N] | verify [NAME]", "fetch, verify and prepare the data sets of the tasks" },
    { "describe", cmd_describe, "[--fd N] FILE.so|--device D", NULL },
    { "worker", cmd_worker, "", NULL },
    { NULL, NULL, NULL, NULL },
};

/* The row of that name, or NULL. */
const hs_command *hs_command_find(const char *name)
{
    for (const hs_command *c = commands; c->name; c++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

/* With a complaint: it and the arguments on stderr, HS_EXIT_USAGE.  Without: the help on stdout, HS_EXIT_OK. */
int hs_usage(const hs_command *c, const char *complaint)
{
    if (complaint) {
        fprintf(stderr, "harness %s: %s\nusage: harness %s %s\n", c->name, complaint, c->name, c->args);
        return HS_EXIT_USAGE;
    }
    printf("usage: harness %s %s\n%s\n", c->name, c->args, c->help ? c->help : "used by harness itself");
    return HS_EXIT_OK;
}

/* See command.h. */
int hs_help(void)
{
    puts("harness - is an attention mechanism right, how good is it, what does it cost?\n");
    for (const hs_command *c = commands; c->name; c++)
        if (c->help) printf("  harness %-8s %s\n", c->name, c->help);
    puts("\n  harness COMMAND -h says more; harness --version names the build.\n"
         "  exit status: 0 done, 1 some cells failed, 2 usage, 3 bad experiment file, 4 no such device,\n"
         "               5 bad plug-in, 6 nothing to do, 7 the store failed, 130 interrupted");
    return HS_EXIT_OK;
}

/* See command.h. */
int hs_unknown_command(const char *name)
{
    const char *names[sizeof commands / sizeof *commands];
    size_t n = 0;
    for (const hs_command *c = commands; c->name; c++)
        if (c->help) names[n++] = c->name;
    const char *near = hs_nearest(name, names, n);
    fprintf(stderr, "harness: there is no command '%s'%s%s%s (harness -h lists them)\n", name,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return HS_EXIT_USAGE;
}
