/* check_options.c - which option sets of a variant are checked.
 *
 * The defaults; every option changed alone; and every pair of changes (quick: of the two principal options).  Integers that make a
 * problem big (features, windows) are 8 instead, but for the defaults; lengths, which are at least 1, are 3 as well, so
 * that the smallest problem has several windows.  A change that plan() refuses is tried again with one more change
 * beside it: update_rule=fwm needs qk_norm=none, and is found that way.  When plan() refuses the defaults, the first
 * integer with which it takes them is 5 in all sets: the width of a picture has no default. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"
#include "options.h"

typedef struct change { const attn_opt *o; char text[64]; } change;
typedef struct sets {
    const attn_variant *v;
    const attn_impl *impl;
    attn_shape s;
    hs_opt_set *set;
    size_t n, room;
    change *changes;
    size_t nchanges;
    const attn_opt *required;           /* has no usable default; NULL: there is none such */
} sets;

enum { BIG = 16, SMALL = 8, MOST_CHANGES = 4 };
static const char LENGTH[] = "3", REQUIRED[] = "5";

static int is_big(const attn_opt *o) { return o->type == ATTN_INT && o->def > BIG && o->min <= SMALL; }

/* Option tables name what they change; the host's own redraw interval means nothing to a single call. */
static int is_host_option(const attn_opt *o) { return !strcmp(o->name, "redraw_interval"); }

static void add_change(sets *z, const attn_opt *o, const char *text)
{
    z->changes = realloc(z->changes, (z->nchanges + 1) * sizeof *z->changes);
    if (!z->changes) abort();
    z->changes[z->nchanges].o = o;
    snprintf(z->changes[z->nchanges++].text, sizeof z->changes->text, "%s", text);
}

/* All values of an option worth a set of their own, besides the one that the other sets have. */
static void add_changes_of(sets *z, const attn_opt *o)
{
    char text[64], copy[512];
    if (o->type == ATTN_BOOL) add_change(z, o, o->def ? "false" : "true");
    if (o->type == ATTN_CHOICE) {
        int i = 0;
        snprintf(copy, sizeof copy, "%s", o->choices);
        for (char *rest = copy, *one; (one = strsep(&rest, ",")); i++) if (i != (int)o->def) add_change(z, o, one);
    }
    for (int i = 0; o->type == ATTN_INT && i < 3; i++) {
        double x = o->min + i;
        snprintf(text, sizeof text, "%.0f", x);
        if (is_big(o) && i > 0) break;  /* 0 often means automatic; one or two features mean ill conditions */
        if (x >= -1 && x <= BIG && x <= o->max && x != o->def && !(is_big(o) && x != 0)) add_change(z, o, text);
    }
    if (is_big(o) && o->min >= 1) add_change(z, o, LENGTH);
    if (o->type == ATTN_FLOAT) {
        double x = o->def == 0 ? 0.5 : o->def / 2;
        snprintf(text, sizeof text, "%g", x);
        if (x >= o->min && x <= o->max) add_change(z, o, text);
    }
}

/* ---- one set ------------------------------------------------------------------------------------------ */
static void append(char *text, size_t n, const char *name, const char *value)
{
    size_t used = strlen(text);
    snprintf(text + used, n - used, "%s%s=%s", used ? " " : "", name, value);
}

/* The struct and the text of some changes; NULL with a reason when a value is not in its range. */
static void *build(const sets *z, const change *const *changes, size_t n, int reduce, char *text, size_t ntext, char *why, size_t nwhy)
{
    void *opts = calloc(1, z->v->opts_size + 1);
    if (!opts) abort();
    text[0] = 0;
    hs_opts_defaults(z->v->opts, opts);
    for (const attn_opt *o = z->v->opts; o && o->name; o++) {
        const char *value = o == z->required ? REQUIRED : reduce && is_big(o) ? "8" : NULL;
        for (size_t i = 0; i < n; i++) if (changes[i]->o == o) value = NULL;
        if (!value) continue;
        hs_opt_set_text(o, opts, value, why, nwhy);
        append(text, ntext, o->name, value);
    }
    for (size_t i = 0; i < n; i++) {
        if (hs_opt_set_text(changes[i]->o, opts, changes[i]->text, why, nwhy)) { free(opts); return NULL; }
        append(text, ntext, changes[i]->o->name, changes[i]->text);
    }
    return opts;
}

static int known(const sets *z, const char *text)
{
    for (size_t i = 0; i < z->n; i++) if (!strcmp(z->set[i].text, text)) return 1;
    return 0;
}

static void add_set(sets *z, void *opts, const char *text, const char *refusal)
{
    if (z->n == z->room) z->set = realloc(z->set, (z->room = z->room * 2 + 16) * sizeof *z->set);
    if (!z->set) abort();
    z->set[z->n++] = (hs_opt_set){ opts, strdup(text), refusal ? strdup(refusal) : NULL, 0 };
}

/* 0 when plan() takes the set (it is then in the list), -1 with the reason when not. */
static int try_set(sets *z, const change *const *changes, size_t n, int reduce, char *text, size_t ntext, char *why, size_t nwhy)
{
    attn_plan plan = { 0 };
    void *opts = build(z, changes, n, reduce, text, ntext, why, nwhy);
    if (!opts) return -1;
    if (known(z, text)) { free(opts); return 0; }
    int rc = z->impl->plan(&z->s, opts, &plan);
    if (rc == ATTN_EUNSUP) {
        snprintf(why, nwhy, "%.159s", plan.why);
        free(opts);
        return -1;
    }
    add_set(z, opts, text, NULL);       /* any other code is a fault, which hs_check_plan reports */
    return 0;
}

/* A set of changes, or the first set with one more change that plan() takes; else a refusal on record. */
static void add(sets *z, const change *const *changes, size_t n)
{
    char text[256], repaired[256], why[200] = "", ignored[200];
    const change *more[MOST_CHANGES];
    if (!try_set(z, changes, n, 1, text, sizeof text, why, sizeof why)) return;
    memcpy(more, changes, n * sizeof *more);
    for (size_t i = 0; i < z->nchanges; i++) {
        int taken = z->changes[i].o->type != ATTN_CHOICE && z->changes[i].o->type != ATTN_BOOL;
        for (size_t j = 0; j < n; j++) taken |= changes[j]->o == z->changes[i].o;
        more[n] = &z->changes[i];
        if (!taken && !try_set(z, more, n + 1, 1, repaired, sizeof repaired, ignored, sizeof ignored)) return;
    }
    if (!known(z, text)) add_set(z, NULL, text, why);
}

/* "update_rule=fwm qk_norm=none", as given by the caller, on top of the defaults. */
static int add_given(sets *z, const char *given, char *why, size_t nwhy)
{
    char copy[512];
    change changes[16];
    const change *list[16];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", given);
    for (char *rest = copy, *one; (one = strsep(&rest, " ,")) && n < 16;) {
        char *value = strchr(one, '=');
        if (!*one) continue;
        if (value) *value++ = 0;
        changes[n].o = hs_opts_find(z->v->opts, one);
        if (!value || !changes[n].o) { snprintf(why, nwhy, "%s has no option '%s' (write name=value)", z->v->name, one); return -1; }
        snprintf(changes[n].text, sizeof changes[n].text, "%s", value);
        list[n] = &changes[n], n++;
    }
    char text[256], reason[200] = "";
    if (try_set(z, list, n, 0, text, sizeof text, reason, sizeof reason)) add_set(z, NULL, given, reason);
    return 0;
}

/* ---- all of them ---------------------------------------------------------------------------------------- */
static int number_of_changes(const sets *z, const attn_opt *o)
{
    int n = 0;
    for (size_t i = 0; i < z->nchanges; i++) n += z->changes[i].o == o;
    return n;
}

/* The two options with the most choices say what is computed; their pairs are worth it even when time is short. */
static int is_principal(const sets *z, const attn_opt *o)
{
    int richer = 0;
    for (const attn_opt *other = z->v->opts; other->name; other++)
        if (other->type == ATTN_CHOICE && other != o)
            richer += number_of_changes(z, other) > number_of_changes(z, o) || (number_of_changes(z, other) == number_of_changes(z, o) && other < o);
    return o->type == ATTN_CHOICE && richer < 2;
}

/* The defaults, which come first in the list; with what they require. */
static void add_defaults(sets *z)
{
    char text[256], why[200] = "", ignored[200] = "";
    int refused = try_set(z, NULL, 0, 0, text, sizeof text, why, sizeof why);
    for (const attn_opt *o = z->v->opts; refused && o && o->name; o++) {
        if (o->type != ATTN_INT) continue;
        z->required = o;
        refused = try_set(z, NULL, 0, 0, text, sizeof text, ignored, sizeof ignored);
    }
    if (refused) z->required = NULL, add_set(z, NULL, "", why);
    z->set[0].defaults = 1;
}

static void add_made_up(sets *z, int quick)
{
    for (const attn_opt *o = z->v->opts; o && o->name; o++) if (!is_host_option(o)) add_changes_of(z, o);
    for (size_t i = 0; i < z->nchanges; i++) add(z, (const change *[]){ &z->changes[i] }, 1);
    for (size_t i = 0; i < z->nchanges; i++)
        for (size_t j = i + 1; j < z->nchanges; j++) {
            const change *a = &z->changes[i], *b = &z->changes[j];
            if (a->o == b->o || a->o->type == ATTN_FLOAT || b->o->type == ATTN_FLOAT) continue;
            if (!quick || (is_principal(z, a->o) && is_principal(z, b->o))) add(z, (const change *[]){ a, b }, 2);
        }
}

hs_opt_set *hs_opt_sets(const attn_variant *v, const attn_impl *impl, attn_shape s, const hs_check_args *args, size_t *n,
                        char *why, size_t nwhy)
{
    sets z = { .v = v, .impl = impl, .s = s };
    int bad = 0;
    if (!args->only_options) {
        add_defaults(&z);
        if (!args->defaults) add_made_up(&z, args->quick);
    }
    for (size_t i = 0; i < args->noptions && !bad; i++) bad = add_given(&z, args->options[i], why, nwhy);
    free(z.changes);
    *n = z.n;
    if (!bad) return z.set;
    hs_opt_sets_free(z.set, z.n);
    return NULL;
}

void hs_opt_sets_free(hs_opt_set *set, size_t n)
{
    for (size_t i = 0; i < n; i++) free(set[i].opts), free(set[i].text), free(set[i].refusal);
    free(set);
}
