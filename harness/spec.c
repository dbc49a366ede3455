/* spec.c - see spec.h. */
#define _GNU_SOURCE
#include "spec.h"
#include "options.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

enum { MAX_DEPTH = 32, MAX_BYTES = 4 << 20 };

/* What one reading carries along. */
typedef struct reader {
    yaml_parser_t yaml;
    const char *text, *origin;
    int is_file;                        /* else an argument, which has no lines */
    int depth;
    hs_errors *errors;
} reader;

/* ---- errors --------------------------------------------------------------------------------------------- */
/* See spec.h. */
void hs_errors_add(hs_errors *e, hs_node *where, const char *fmt, ...)
{
    char *sentence = NULL;
    va_list ap;
    if (where->refused) return;
    where->refused = where->kind == HS_SCALAR;
    va_start(ap, fmt);
    if (vasprintf(&sentence, fmt, ap) < 0) sentence = NULL;
    va_end(ap);
    hs_error *more = realloc(e->at, (e->n + 1) * sizeof *more);
    if (more) {
        hs_error *one = &more[e->n];
        *one = (hs_error){ where->line, where->col, NULL };
        int rc = where->line ? asprintf(&one->text, "%s:%zu:%zu: %s", where->origin, where->line, where->col, sentence)
                             : asprintf(&one->text, "%s: %s", where->origin, sentence);
        e->at = more;
        e->n += rc >= 0;
    }
    free(sentence);
}

/* See spec.h. */
void hs_errors_warn(hs_errors *e, hs_node *where, const char *sentence)
{
    size_t before = e->n;
    hs_errors_add(e, where, "warning: %s", sentence);
    e->warnings += e->n - before;
}

/* By place; what is not from the file comes first. */
static int by_place(const void *a, const void *b)
{
    const hs_error *x = a, *y = b;
    if (x->line != y->line) return x->line < y->line ? -1 : 1;
    return x->col < y->col ? -1 : x->col > y->col;
}

/* One line each, sorted. */
void hs_errors_print(hs_errors *e, FILE *f)
{
    if (e->n) qsort(e->at, e->n, sizeof *e->at, by_place);
    for (size_t i = 0; i < e->n; i++) fprintf(f, "%s\n", e->at[i].text);
}

/* Frees the list. */
void hs_errors_release(hs_errors *e)
{
    for (size_t i = 0; i < e->n; i++) free(e->at[i].text);
    free(e->at);
    *e = (hs_errors){ 0 };
}

/* ---- nodes ------------------------------------------------------------------------------------------------- */
/* See spec.h. */
hs_node *hs_node_new(int kind, const char *text, const hs_node *where)
{
    hs_node *n = calloc(1, sizeof *n);
    if (!n) return NULL;
    *n = (hs_node){ .kind = kind, .plain = 1, .line = where->line, .col = where->col, .origin = where->origin };
    n->text = text ? strdup(text) : NULL;
    return n;
}

/* Frees a tree; NULL is fine. */
void hs_node_free(hs_node *n)
{
    if (!n) return;
    for (size_t i = 0; i < n->n; i++) {
        if (n->key) hs_node_free(n->key[i]);
        hs_node_free(n->item[i]);
    }
    free(n->key);
    free(n->item);
    free(n->text);
    free(n);
}

/* Appends an entry and takes both; key is NULL in a list.  -1 when there is no memory. */
static int append(hs_node *to, hs_node *key, hs_node *value)
{
    hs_node **items = realloc(to->item, (to->n + 1) * sizeof *items);
    if (items) to->item = items;
    hs_node **keys = key && items ? realloc(to->key, (to->n + 1) * sizeof *keys) : NULL;
    if (keys) to->key = keys;
    if (!items || (key && !keys)) { hs_node_free(key); hs_node_free(value); return -1; }
    if (key) to->key[to->n] = key;
    to->item[to->n++] = value;
    return 0;
}

/* See spec.h. */
int hs_node_append(hs_node *list, hs_node *value) { return append(list, NULL, value); }

/* The number of a key in a map, or -1. */
static ptrdiff_t key_index(const hs_node *map, const char *key)
{
    for (size_t i = 0; map && map->kind == HS_MAP && i < map->n; i++)
        if (!strcmp(map->key[i]->text, key)) return (ptrdiff_t)i;
    return -1;
}

/* See spec.h. */
hs_node *hs_node_get(const hs_node *map, const char *key)
{
    ptrdiff_t i = key_index(map, key);
    return i < 0 ? NULL : map->item[i];
}

/* See spec.h. */
int hs_node_put(hs_node *map, const char *key, hs_node *value)
{
    ptrdiff_t i = key_index(map, key);
    if (i < 0) return append(map, hs_node_new(HS_SCALAR, key, value), value);
    hs_node_free(map->item[i]);
    map->item[i] = value;
    return 0;
}

/* See spec.h. */
int hs_node_is_null(const hs_node *n)
{
    return n->kind == HS_SCALAR && n->plain && (!*n->text || !strcmp(n->text, "~") || !strcasecmp(n->text, "null"));
}

/* See spec.h. */
json_t *hs_node_json(const hs_node *n)
{
    if (n->kind == HS_SCALAR)
        return hs_node_is_null(n) ? json_null() : n->plain ? hs_scalar_json(n->text) : json_string(n->text);
    json_t *out = n->kind == HS_LIST ? json_array() : json_object();
    for (size_t i = 0; i < n->n; i++)
        if (n->kind == HS_LIST) json_array_append_new(out, hs_node_json(n->item[i]));
        else json_object_set_new(out, n->key[i]->text, hs_node_json(n->item[i]));
    return out;
}

/* See spec.h. */
void hs_node_known(hs_node *map, const char *what, const char *const *names, size_t n, hs_errors *e)
{
    for (size_t i = 0; i < map->n; i++) {
        const char *key = map->key[i]->text;
        size_t j = 0;
        while (j < n && strcmp(names[j], key)) j++;
        if (j < n) continue;
        const char *near = hs_nearest(key, names, n);
        char list[512] = "";
        for (j = 0; !near && j < n; j++)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", j ? ", " : "; known are ", names[j]);
        hs_errors_add(e, map->key[i], "%s has no key '%s'%s%s%s%s", what, key, near ? "; did you mean '" : "",
                      near ? near : "", near ? "'?" : "", list);
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------- */
/* A node at a mark; for --set the place is the argument itself. */
static hs_node *node_at(const reader *r, int kind, const char *text, yaml_mark_t mark)
{
    hs_node where = { .origin = r->origin, .line = r->is_file ? mark.line + 1 : 0, .col = r->is_file ? mark.column + 1 : 0 };
    return hs_node_new(kind, text, &where);
}

/* An error at a mark. */
static void error_at(reader *r, yaml_mark_t mark, const char *sentence)
{
    hs_node *where = node_at(r, HS_LIST, NULL, mark);
    if (where) hs_errors_add(r->errors, where, "%s", sentence);
    hs_node_free(where);
}

/* The place of a byte of the input, for errors of the encoding, which come without a mark. */
static yaml_mark_t mark_of(const char *text, size_t offset)
{
    yaml_mark_t m = { 0 };
    for (size_t i = 0; i < offset && text[i]; i++) {
        if (text[i] == '\n') m.line++, m.column = 0;
        else if ((text[i] & 0xC0) != 0x80) m.column++;
    }
    return m;
}

/* libyaml's complaint in our words. */
static void explain_syntax(reader *r)
{
    const yaml_parser_t *y = &r->yaml;
    char sentence[256];
    yaml_mark_t mark = y->problem_mark;
    if (y->error == YAML_READER_ERROR) {
        snprintf(sentence, sizeof sentence, "is not UTF-8 text (%s)", y->problem);
        error_at(r, mark_of(r->text, y->problem_offset), sentence);
        return;
    }
    const char *p = r->text;
    for (size_t line = 0; line < mark.line && *p; p++) line += *p == '\n';
    size_t indent = strspn(p, " ");
    if (p[indent] == '\t') {
        mark.column = indent;
        error_at(r, mark, "a tab: YAML is indented with spaces");
        return;
    }
    snprintf(sentence, sizeof sentence, "is not YAML: %s%s%s", y->context ? y->context : "", y->context ? ", " : "",
             y->problem ? y->problem : "out of memory");
    error_at(r, mark, sentence);
}

/* The next event; 0, or -1 with the error told. */
static int next(reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->yaml, ev)) return 0;
    explain_syntax(r);
    return -1;
}

/* Words that YAML 1.1 reads as booleans and YAML 1.2 as text. */
static int is_bool_of_1_1(const char *s)
{
    static const char *const words[] = { "yes", "no", "on", "off" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(s, words[i])) return 1;
    return strcmp(s, "true") && strcmp(s, "false") && (!strcasecmp(s, "true") || !strcasecmp(s, "false"));
}

/* A word as a value; as a key it means what it says. */
static hs_node *read_scalar(reader *r, const yaml_event_t *ev, int is_key)
{
    const char *text = (const char *)ev->data.scalar.value;
    hs_node *n = node_at(r, HS_SCALAR, text, ev->start_mark);
    if (!n) return NULL;
    n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (ev->data.scalar.anchor) hs_errors_add(r->errors, n, "anchors (&%s) are not supported", ev->data.scalar.anchor);
    else if (ev->data.scalar.tag) hs_errors_add(r->errors, n, "tags (%s) are not supported", ev->data.scalar.tag);
    else if (strlen(text) != ev->data.scalar.length) hs_errors_add(r->errors, n, "a zero byte in a text");
    else if (!is_key && n->plain && is_bool_of_1_1(text))
        hs_errors_add(r->errors, n, "'%s' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"%s\" "
                      "in quotes for the word", text, text);
    return n;
}

static hs_node *read_node(reader *, yaml_event_t *);

/* Refuses anchors and tags of a list or a map. */
static void refuse_marks(reader *r, hs_node *n, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor) hs_errors_add(r->errors, n, "anchors (&%s) are not supported", anchor);
    if (tag) hs_errors_add(r->errors, n, "tags (%s) are not supported", tag);
}

/* A list, to its end. */
static hs_node *read_list(reader *r, const yaml_event_t *start)
{
    hs_node *list = node_at(r, HS_LIST, NULL, start->start_mark);
    yaml_event_t ev;
    if (!list) return NULL;
    refuse_marks(r, list, start->data.sequence_start.anchor, start->data.sequence_start.tag);
    while (!next(r, &ev)) {
        if (ev.type == YAML_SEQUENCE_END_EVENT) { yaml_event_delete(&ev); return list; }
        hs_node *item = read_node(r, &ev);
        if (!item || append(list, NULL, item)) break;
    }
    hs_node_free(list);
    return NULL;
}

/* A key may come once, is a word, and is not a merge; 0 when the entry is to be left out. */
static int key_serves(reader *r, const hs_node *map, hs_node *key)
{
    ptrdiff_t first;
    if (key->kind != HS_SCALAR) hs_errors_add(r->errors, key, "a key must be a word");
    else if (!strcmp(key->text, "<<")) hs_errors_add(r->errors, key, "merge keys (<<) are not supported: write the keys out");
    else if ((first = key_index(map, key->text)) >= 0)
        hs_errors_add(r->errors, key, "the key '%s' is given twice, first on line %zu", key->text, map->key[first]->line);
    else return 1;
    return 0;
}

/* A map, to its end. */
static hs_node *read_map(reader *r, const yaml_event_t *start)
{
    hs_node *map = node_at(r, HS_MAP, NULL, start->start_mark);
    yaml_event_t ev;
    if (!map) return NULL;
    refuse_marks(r, map, start->data.mapping_start.anchor, start->data.mapping_start.tag);
    while (!next(r, &ev)) {
        hs_node *key, *value;
        if (ev.type == YAML_MAPPING_END_EVENT) { yaml_event_delete(&ev); return map; }
        if (ev.type != YAML_SCALAR_EVENT) key = read_node(r, &ev);
        else key = read_scalar(r, &ev, 1), yaml_event_delete(&ev);
        if (!key) break;
        if (next(r, &ev) || !(value = read_node(r, &ev))) { hs_node_free(key); break; }
        if (!key_serves(r, map, key)) hs_node_free(key), hs_node_free(value);
        else if (append(map, key, value)) break;
    }
    hs_node_free(map);
    return NULL;
}

/* Any value; consumes the event.  NULL: the reading is over, with the error told. */
static hs_node *read_node(reader *r, yaml_event_t *ev)
{
    hs_node *n = NULL;
    if (r->depth == MAX_DEPTH) error_at(r, ev->start_mark, "is nested too deeply");
    else if (ev->type == YAML_ALIAS_EVENT) {
        if ((n = node_at(r, HS_SCALAR, "", ev->start_mark)))
            hs_errors_add(r->errors, n, "aliases (*%s) are not supported: write the value again", ev->data.alias.anchor);
    }
    else if (ev->type == YAML_SCALAR_EVENT) n = read_scalar(r, ev, 0);
    else {
        r->depth++;
        n = ev->type == YAML_SEQUENCE_START_EVENT ? read_list(r, ev) : read_map(r, ev);
        r->depth--;
    }
    yaml_event_delete(ev);
    return n;
}

/* The stream: one document with one node. */
static hs_node *read_stream(reader *r)
{
    hs_node *root = NULL;
    yaml_event_t ev;
    int begun = 0, type;
    do {
        if (next(r, &ev)) break;
        type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT && begun++) {
            error_at(r, ev.start_mark, "a second document begins here: a file holds one experiment");
            yaml_event_delete(&ev);
            return root;
        }
        if (type == YAML_STREAM_END_EVENT && !begun) error_at(r, (yaml_mark_t){ 0 }, "is empty: an experiment is expected");
        if (type < YAML_ALIAS_EVENT) yaml_event_delete(&ev);     /* start and end of stream and document */
        else if (!(root = read_node(r, &ev))) break;
    } while (type != YAML_STREAM_END_EVENT);
    return root;
}

/* Parses text of n bytes. */
static hs_node *read_text(const char *text, size_t n, const char *origin, int is_file, hs_errors *e)
{
    reader r = { .text = text, .origin = origin, .is_file = is_file, .errors = e };
    if (!yaml_parser_initialize(&r.yaml)) return NULL;
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, n);
    hs_node *root = read_stream(&r);
    yaml_parser_delete(&r.yaml);
    return root;
}

/* See spec.h. */
hs_node *hs_spec_text(const char *text, const char *origin, hs_errors *e)
{
    return read_text(text, strlen(text), origin, 0, e);
}

/* The bytes of a file and a zero; NULL with errno. */
static char *slurp(const char *path, size_t *n)
{
    struct stat st;
    char *text = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    if (!fstat(fileno(f), &st) && S_ISDIR(st.st_mode)) errno = EISDIR;
    else if ((text = malloc(MAX_BYTES + 1))) {
        *n = fread(text, 1, MAX_BYTES + 1, f);
        if (*n <= MAX_BYTES) text[*n] = 0;
        else errno = EFBIG, free(text), text = NULL;
    }
    fclose(f);
    return text;
}

/* See spec.h. */
hs_node *hs_spec_file(const char *path, hs_errors *e)
{
    hs_node where = { .kind = HS_MAP, .origin = path };
    size_t n = 0;
    char *text = slurp(path, &n);
    if (!text) {
        hs_errors_add(e, &where, "%s", strerror(errno));
        return NULL;
    }
    hs_node *root = read_text(text, n, path, 1, e);
    free(text);
    return root;
}
