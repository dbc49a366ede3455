/* options.c - option tables (attn_opt) as data.
 *
 * Every way in (text, JSON, a canonical value) goes through parse(), and every way out through to_json(), so
 * that the command line, an experiment file and a record agree on what a value is. */
#include "options.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One value of any type; the field that counts is the one of the option's type. */
typedef struct value {
    int32_t i;                          /* INT, BOOL, CHOICE */
    double d;                           /* FLOAT */
    attn_ints list;                     /* INTS */
    char text[ATTN_TEXT_SIZE];          /* TEXT */
} value;

/* Writes the sentence and returns -1, so that a failing line reads `return refuse(...)`. */
__attribute__((format(printf, 3, 4)))
static int refuse(char *why, size_t nwhy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (nwhy) vsnprintf(why, nwhy, fmt, ap);
    va_end(ap);
    return -1;
}

/* Number of rows before the one whose name is NULL; a NULL table is empty. */
size_t hs_opts_count(const attn_opt *table)
{
    size_t n = 0;
    while (table && table[n].name) n++;
    return n;
}

/* The row of that name, or NULL. */
const attn_opt *hs_opts_find(const attn_opt *table, const char *name)
{
    for (const attn_opt *o = table; o && o->name; o++)
        if (!strcmp(o->name, name)) return o;
    return NULL;
}

/* See options.h. */
int hs_name_valid(const char *name, int dots)
{
    if (!name || !*name || *name == '.') return 0;
    for (const char *p = name; *p; p++) {
        if ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_') continue;
        if (!dots || *p != '.' || p[1] == '.' || !p[1]) return 0;
    }
    return 1;
}

/* ---- nearest name ---------------------------------------------------------------------------------- */
enum { NAME_MAX_COMPARED = 64 };

/* Edit distance with insertions, deletions, substitutions and swaps of neighbours; large for long names. */
static int edit_distance(const char *a, const char *b)
{
    int d[3][NAME_MAX_COMPARED + 1], na = (int)strlen(a), nb = (int)strlen(b);
    if (na > NAME_MAX_COMPARED || nb > NAME_MAX_COMPARED) return NAME_MAX_COMPARED;
    for (int j = 0; j <= nb; j++) d[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *now = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = best;
        }
    }
    return d[na % 3][nb];
}

/* A typo changes one letter of a short name, but not its first ("gpu" is no "cpu"), and two or three of a long
 * one; the first of equals wins. */
const char *hs_nearest(const char *name, const char *const *names, size_t n)
{
    size_t len = strlen(name);
    int best = len <= 3 ? 2 : len <= 7 ? 3 : 4;
    const char *found = NULL;
    for (size_t i = 0; i < n; i++) {
        if (len <= 3 && name[0] != names[i][0]) continue;
        int d = edit_distance(name, names[i]);
        if (d < best) best = d, found = names[i];
    }
    return found;
}

/* ---- choices ------------------------------------------------------------------------------------------ */
/* Copies choice number i of "a,b,c" into out; 0 when there is no such number. */
static int choice_name(const char *choices, int i, char *out, size_t n)
{
    const char *p = choices;
    for (; p && i > 0; i--) { p = strchr(p, ','); if (p) p++; }
    if (!p || i < 0) return 0;
    snprintf(out, n, "%.*s", (int)strcspn(p, ","), p);
    return 1;
}

/* The index of a choice, or -1. */
static int choice_index(const char *choices, const char *name)
{
    char one[NAME_MAX_COMPARED + 1];
    for (int i = 0; choice_name(choices, i, one, sizeof one); i++)
        if (!strcmp(one, name)) return i;
    return -1;
}

/* The sentence for a name that is none of the choices. */
static int refuse_choice(const attn_opt *o, const char *got, char *why, size_t nwhy)
{
    char names[64][NAME_MAX_COMPARED + 1];
    const char *list[64], *near;
    char range[512];
    int n = 0;
    while (n < 64 && choice_name(o->choices, n, names[n], sizeof names[n])) list[n] = names[n], n++;
    near = hs_nearest(got, list, (size_t)n);
    hs_opt_range(o, range, sizeof range);
    return refuse(why, nwhy, "%s must be %s, not '%s'%s%s%s", o->name, range, got, near ? "; did you mean '" : "",
                  near ? near : "", near ? "'?" : "");
}

/* ---- ranges ------------------------------------------------------------------------------------------- */
/* A number that stands for "no limit" says nothing to a reader: 1e30 and more, INT32_MIN and INT32_MAX. */
static int has_min(const attn_opt *o) { return o->type == ATTN_FLOAT ? o->min > -1e30 : o->min > INT32_MIN; }
static int has_max(const attn_opt *o) { return o->type == ATTN_FLOAT ? o->max < 1e30 : o->max < INT32_MAX; }

/* See options.h. */
void hs_opt_range(const attn_opt *o, char *out, size_t n)
{
    const char *what = o->type == ATTN_INTS ? "list of " : "";
    int open = o->flags & ATTN_OPEN_MIN;
    if (o->type == ATTN_BOOL) snprintf(out, n, "true|false");
    else if (o->type == ATTN_TEXT) snprintf(out, n, "%s", o->flags & ATTN_DATA_SET ? "a prepared data set" : o->flags & ATTN_OTHER_VARIANT ? "a variant" : "text");
    else if (o->type == ATTN_CHOICE) {
        snprintf(out, n, "%s", o->choices ? o->choices : "");
        for (char *p = out; *p; p++) if (*p == ',') *p = '|';
    }
    else if (has_min(o) && has_max(o) && !open) snprintf(out, n, "%s%.15g..%.15g", what, o->min, o->max);
    else if (has_min(o) && has_max(o)) snprintf(out, n, "%s> %.15g and <= %.15g", what, o->min, o->max);
    else if (has_min(o)) snprintf(out, n, "%s%s %.15g", what, open ? ">" : ">=", o->min);
    else if (has_max(o)) snprintf(out, n, "%s<= %.15g", what, o->max);
    else snprintf(out, n, "%sany number", what);
}

/* 0 when x lies in the option's range.  Infinity is taken only where the default is infinite: a table that says
 * "no upper limit" does not mean a learning rate of inf. */
static int check_range(const attn_opt *o, double x, char *why, size_t nwhy)
{
    char range[512];
    int low = o->flags & ATTN_OPEN_MIN ? !(x > o->min) : !(x >= o->min);
    if (isinf(x) && x != o->def) return refuse(why, nwhy, "%s must be finite", o->name);
    if (!low && x <= o->max) return 0;
    hs_opt_range(o, range, sizeof range);
    return refuse(why, nwhy, "%s must be %s%s, not %.15g", o->name, o->type == ATTN_INTS ? "a " : "", range, x);
}

/* ---- values in ---------------------------------------------------------------------------------------------- */
/* A JSON value as a short text for a sentence: '"two"' is shown as 'two'. */
static void show(const json_t *v, char *out, size_t n)
{
    char *dump = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    const char *text = json_is_string(v) ? json_string_value(v) : dump ? dump : "?";
    if (strlen(text) < n) snprintf(out, n, "%s", text);
    else snprintf(out, n, "%.*s...", (int)n - 4, text);
    free(dump);
}

/* An integral number of 32 bits, written as 3 or as 1e3. */
static int json_int32(const json_t *v, int32_t *out)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || x != floor(x) || x < INT32_MIN || x > INT32_MAX) return -1;
    *out = (int32_t)x;
    return 0;
}

/* A number, or the text that stands for an infinite one. */
static int json_float(const json_t *v, double *out)
{
    const char *s = json_string_value(v);
    if (json_is_number(v)) *out = json_number_value(v);
    else if (s && (!strcmp(s, "inf") || !strcmp(s, "-inf"))) *out = *s == '-' ? -INFINITY : INFINITY;
    else return -1;
    return 0;
}

/* A list of integers; a single integer is a list of one. */
static int parse_ints(const attn_opt *o, const json_t *v, attn_ints *out, char *why, size_t nwhy)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    char got[64];
    show(v, got, sizeof got);
    if (n < 1 || n > ATTN_MAX_INTS)
        return refuse(why, nwhy, "%s must be a list of 1..%d integers, not %s", o->name, ATTN_MAX_INTS, got);
    memset(out, 0, sizeof *out);
    for (out->n = 0; out->n < (int32_t)n; out->n++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, (size_t)out->n) : v;
        if (json_int32(one, &out->v[out->n]))
            return refuse(why, nwhy, "%s must be a list of integers such as [8, 16], not '%s'", o->name, got);
        if (check_range(o, out->v[out->n], why, nwhy)) return -1;
    }
    return 0;
}

/* Text of one line; a bare number or truth value in YAML is text too. */
static int parse_text(const attn_opt *o, const json_t *v, char *out, char *why, size_t nwhy)
{
    char *dump = json_is_object(v) || json_is_array(v) || json_is_null(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    const char *text = json_is_string(v) ? json_string_value(v) : dump;
    int rc = 0;
    if (!text) rc = refuse(why, nwhy, "%s must be text", o->name);
    else if (strlen(text) >= ATTN_TEXT_SIZE) rc = refuse(why, nwhy, "%s must be shorter than %d bytes", o->name, ATTN_TEXT_SIZE);
    else if (strpbrk(text, "\n\r\t")) rc = refuse(why, nwhy, "%s must be text of one line", o->name);
    else snprintf(out, ATTN_TEXT_SIZE, "%s", text);
    free(dump);
    return rc;
}

/* The one parser: a JSON value checked against type and range. */
static int parse(const attn_opt *o, const json_t *v, value *out, char *why, size_t nwhy)
{
    char got[64], range[512];
    show(v, got, sizeof got);
    switch (o->type) {
    case ATTN_INT:
        if (!json_int32(v, &out->i)) return check_range(o, out->i, why, nwhy);
        if (json_number_value(v) > INT32_MAX) return refuse(why, nwhy, "%s must be at most %d, not %s", o->name, INT32_MAX, got);
        hs_opt_range(o, range, sizeof range);
        return refuse(why, nwhy, "%s must be an integer (%s), not '%s'", o->name, range, got);
    case ATTN_FLOAT:
        if (!json_float(v, &out->d)) return check_range(o, out->d, why, nwhy);
        hs_opt_range(o, range, sizeof range);
        return refuse(why, nwhy, "%s must be a number (%s), not '%s'", o->name, range, got);
    case ATTN_BOOL:
        out->i = json_is_true(v);
        if (json_is_boolean(v)) return 0;
        return refuse(why, nwhy, "%s must be true or false, not '%s': write true or false", o->name, got);
    case ATTN_CHOICE:
        out->i = choice_index(o->choices, got);
        return out->i >= 0 && !json_is_array(v) ? 0 : refuse_choice(o, got, why, nwhy);
    case ATTN_INTS:
        return parse_ints(o, v, &out->list, why, nwhy);
    case ATTN_TEXT:
        return parse_text(o, v, out->text, why, nwhy);
    }
    return refuse(why, nwhy, "%s has the unknown type %d", o->name, o->type);
}

/* ---- values out ------------------------------------------------------------------------------------------- */
/* The default as a value. */
static value default_of(const attn_opt *o)
{
    value v = { .i = (int32_t)o->def, .d = o->def, .list = { .n = 1, .v = { (int32_t)o->def } } };
    if (o->type == ATTN_TEXT) snprintf(v.text, sizeof v.text, "%s", o->choices ? o->choices : "");
    return v;
}

/* Into the field of an options struct. */
static void store(const attn_opt *o, const value *v, void *opts)
{
    char *field = (char *)opts + o->off;
    if (o->type == ATTN_FLOAT) memcpy(field, &v->d, sizeof v->d);
    else if (o->type == ATTN_INTS) memcpy(field, &v->list, sizeof v->list);
    else if (o->type == ATTN_TEXT) memcpy(field, v->text, sizeof v->text);
    else memcpy(field, &v->i, sizeof v->i);
}

/* Out of the field of an options struct. */
static value load(const attn_opt *o, const void *opts)
{
    value v = { 0 };
    const char *field = (const char *)opts + o->off;
    if (o->type == ATTN_FLOAT) memcpy(&v.d, field, sizeof v.d);
    else if (o->type == ATTN_INTS) memcpy(&v.list, field, sizeof v.list);
    else if (o->type == ATTN_TEXT) memcpy(v.text, field, sizeof v.text);
    else memcpy(&v.i, field, sizeof v.i);
    return v;
}

/* A double as JSON, infinities as text. */
static json_t *real_json(double x)
{
    return isinf(x) ? json_string(x < 0 ? "-inf" : "inf") : json_real(x == 0 ? 0 : x);
}

/* A value in its canonical JSON type. */
static json_t *to_json(const attn_opt *o, const value *v)
{
    char name[NAME_MAX_COMPARED + 1];
    json_t *list;
    switch (o->type) {
    case ATTN_FLOAT:  return real_json(v->d);
    case ATTN_BOOL:   return json_boolean(v->i);
    case ATTN_CHOICE: return choice_name(o->choices, v->i, name, sizeof name) ? json_string(name) : NULL;
    case ATTN_INTS:
        list = json_array();
        for (int32_t i = 0; i < v->list.n; i++) json_array_append_new(list, json_integer(v->list.v[i]));
        return list;
    case ATTN_TEXT:   return json_string(v->text);
    }
    return json_integer(v->i);
}

/* ---- the public face ---------------------------------------------------------------------------------------- */
/* See options.h. */
void hs_opts_defaults(const attn_opt *table, void *opts)
{
    for (const attn_opt *o = table; o && o->name; o++) {
        value v = default_of(o);
        store(o, &v, opts);
    }
}

/* See options.h. */
int hs_opt_set_json(const attn_opt *o, void *opts, const json_t *json, char *why, size_t nwhy)
{
    value v;
    if (parse(o, json, &v, why, nwhy)) return -1;
    store(o, &v, opts);
    return 0;
}

/* See options.h. */
json_t *hs_scalar_json(const char *text)
{
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    if (!strcmp(text, "true") || !strcmp(text, "false")) return json_boolean(*text == 't');
    if (!strcmp(digits, "inf") || !strcmp(digits, ".inf")) return json_string(*text == '-' ? "-inf" : "inf");
    /* What strtod also takes and a reader does not expect: blanks, hexadecimal, nan; octal is YAML 1.1's trap. */
    if (!strspn(digits, ".0123456789") || digits[strspn(digits, ".+-eE0123456789")]) return json_string(text);
    if (digits[0] == '0' && strspn(digits + 1, "0123456789")) return json_string(text);
    errno = 0;
    long long i = strtoll(text, &end, 10);
    if (!*end && !errno) return json_integer(i);
    double x = strtod(text, &end);
    return *end || !isfinite(x) ? json_string(text) : json_real(x);
}

/* "[8, 16]", "8,16" or "8" as a JSON list; blanks around the numbers are fine. */
static json_t *list_json(const char *text)
{
    json_t *list = json_array();
    size_t n = strlen(text);
    char *copy = strdup(text), *rest = copy, *part;
    if (n > 1 && text[0] == '[' && text[n - 1] == ']') copy[n - 1] = 0, rest++;
    while ((part = strsep(&rest, ","))) {
        part += strspn(part, " ");
        part[strcspn(part, " ")] = 0;
        json_array_append_new(list, hs_scalar_json(part));
    }
    free(copy);
    return list;
}

/* See options.h. */
int hs_opt_set_text(const attn_opt *o, void *opts, const char *text, char *why, size_t nwhy)
{
    json_t *v = o->type == ATTN_CHOICE || o->type == ATTN_TEXT ? json_string(text) : o->type == ATTN_INTS ? list_json(text) : hs_scalar_json(text);
    int rc = v ? hs_opt_set_json(o, opts, v, why, nwhy) : refuse(why, nwhy, "%s is not UTF-8 text", o->name);
    json_decref(v);
    return rc;
}

/* See options.h. */
int hs_opts_set_json(const attn_opt *table, void *opts, const json_t *object, char *why, size_t nwhy)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)object, name, v) {
        const attn_opt *o = hs_opts_find(table, name);
        if (!o) return refuse(why, nwhy, "there is no option '%s'", name);
        if (hs_opt_set_json(o, opts, v, why, nwhy)) return -1;
    }
    return 0;
}

/* See options.h. */
json_t *hs_opts_to_json(const attn_opt *table, const void *opts)
{
    json_t *object = json_object();
    for (const attn_opt *o = table; o && o->name; o++) {
        value v = load(o, opts);
        json_object_set_new(object, o->name, to_json(o, &v));
    }
    return object;
}

/* See options.h. */
json_t *hs_opt_canonical(const attn_opt *o, const json_t *json, char *why, size_t nwhy)
{
    value v;
    return parse(o, json, &v, why, nwhy) ? NULL : to_json(o, &v);
}

/* ---- across a process border ---------------------------------------------------------------------------- */
static const char *const type_names[] = { "int", "float", "bool", "choice", "ints", "text" };

/* Rows of {"name","help","type","default","min","max","open_min","choices","data_set","other_variant","range"}; an infinite limit is "inf". */
json_t *hs_opts_describe(const attn_opt *table)
{
    json_t *rows = json_array();
    for (const attn_opt *o = table; o && o->name; o++) {
        value v = default_of(o);
        char range[512];
        hs_opt_range(o, range, sizeof range);
        json_t *help = json_string(o->help ? o->help : "");    /* NULL: not UTF-8 */
        json_t *row = json_pack("{s:s, s:o, s:s, s:o, s:s}", "name", o->name, "help", help ? help : json_string("(not UTF-8)"),
                                "type", type_names[o->type], "default", to_json(o, &v), "range", range);
        if (o->type != ATTN_BOOL && o->type != ATTN_CHOICE && o->type != ATTN_TEXT) {
            json_object_set_new(row, "min", real_json(o->min));
            json_object_set_new(row, "max", real_json(o->max));
            json_object_set_new(row, "open_min", json_boolean(o->flags & ATTN_OPEN_MIN));
        }
        if (o->type == ATTN_CHOICE) json_object_set_new(row, "choices", json_string(o->choices ? o->choices : ""));
        if (o->flags & ATTN_DATA_SET) json_object_set_new(row, "data_set", json_true());
        if (o->flags & ATTN_OTHER_VARIANT) json_object_set_new(row, "other_variant", json_true());
        json_array_append_new(rows, row);
    }
    return rows;
}

/* The type's number, ATTN_INT for what is not a type. */
static int32_t type_of(const char *name)
{
    for (int32_t t = 0; name && t < (int32_t)(sizeof type_names / sizeof *type_names); t++)
        if (!strcmp(name, type_names[t])) return t;
    return ATTN_INT;
}

/* One row from its description; its field starts at *size, which is moved past it. */
static attn_opt rebuild_row(const json_t *row, size_t *size)
{
    attn_opt o = { .type = type_of(json_string_value(json_object_get(row, "type"))) };
    const char *help = json_string_value(json_object_get(row, "help"));
    const json_t *def = json_object_get(row, "default");
    const char *choices = json_string_value(o.type == ATTN_TEXT ? def : json_object_get(row, "choices"));
    o.name = strdup(json_string_value(json_object_get(row, "name")));
    o.help = strdup(help ? help : "");
    o.choices = choices ? strdup(choices) : NULL;
    json_float(json_object_get(row, "min"), &o.min);
    json_float(json_object_get(row, "max"), &o.max);
    o.flags = json_is_true(json_object_get(row, "open_min")) ? ATTN_OPEN_MIN : 0;
    if (json_is_true(json_object_get(row, "data_set"))) o.flags |= ATTN_DATA_SET;
    if (json_is_true(json_object_get(row, "other_variant"))) o.flags |= ATTN_OTHER_VARIANT;
    if (o.type == ATTN_CHOICE) o.def = choice_index(o.choices, json_string_value(def));
    else if (o.type == ATTN_BOOL) o.def = json_is_true(def);
    else json_float(o.type == ATTN_INTS ? json_array_get(def, 0) : def, &o.def);
    o.off = *size;
    *size += (o.type == ATTN_TEXT ? ATTN_TEXT_SIZE : sizeof(attn_ints) + 7) & ~(size_t)7;  /* room for a list, aligned for a double */
    return o;
}

/* See options.h. */
attn_opt *hs_opts_rebuild(const json_t *described, size_t *size)
{
    size_t n = json_array_size(described);
    attn_opt *table = calloc(n + 1, sizeof *table);
    *size = 0;
    for (size_t i = 0; table && i < n; i++) table[i] = rebuild_row(json_array_get(described, i), size);
    return table;
}

/* Frees what hs_opts_rebuild made. */
void hs_opts_rebuilt_free(attn_opt *table)
{
    for (attn_opt *o = table; o && o->name; o++) {
        free((char *)o->name);
        free((char *)o->help);
        free((char *)o->choices);
    }
    free(table);
}
