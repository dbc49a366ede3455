/* spec.h - an experiment file as a tree whose nodes know where they stand, and the list of what is wrong with it.
 *
 * YAML is read by libyaml; what it lets pass and a reader does not expect is refused here: keys given twice,
 * anchors, aliases, merge keys, tags, several documents, and the words that YAML 1.1 takes for booleans.
 * Typing is ours: hs_scalar_json in options.h. */
#ifndef HS_SPEC_H
#define HS_SPEC_H
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

enum { HS_SCALAR, HS_LIST, HS_MAP };
typedef struct hs_node hs_node;
struct hs_node {
    int kind;
    int plain;                          /* scalar without quotes */
    int refused;                        /* an error was told already: one per scalar is enough */
    size_t line, col;                   /* from 1; line 0: not from a file */
    const char *origin;                 /* the file, or "--set keys=20"; the reader's caller keeps it */
    char *text;                         /* scalar */
    size_t n;                           /* entries of a list or a map */
    hs_node **key, **item;              /* key: maps only, scalars */
};

/* Errors, at most one per scalar, and warnings among them, printed in the order of the file. */
typedef struct hs_error { size_t line, col; char *text; } hs_error;
typedef struct hs_errors { hs_error *at; size_t n, warnings; } hs_errors;    /* n: of both */
__attribute__((format(printf, 3, 4)))
void hs_errors_add(hs_errors *, hs_node *where, const char *fmt, ...);
void hs_errors_warn(hs_errors *, hs_node *where, const char *sentence);
void hs_errors_print(hs_errors *, FILE *);
void hs_errors_release(hs_errors *);

/* The tree of a file or of a text; NULL when there is none (empty, not YAML), with the error told. */
hs_node *hs_spec_file(const char *path, hs_errors *);
hs_node *hs_spec_text(const char *text, const char *origin, hs_errors *);
void hs_node_free(hs_node *);

hs_node *hs_node_new(int kind, const char *text, const hs_node *where);   /* text: scalars; stands where `where` stands */
hs_node *hs_node_get(const hs_node *map, const char *key);      /* NULL: not there, or not a map */
int  hs_node_put(hs_node *map, const char *key, hs_node *value);    /* replaces or appends; takes value */
int  hs_node_append(hs_node *list, hs_node *value);
int  hs_node_is_null(const hs_node *);  /* nothing, ~ or null */
json_t *hs_node_json(const hs_node *);  /* plain scalars typed, the rest text */
/* Every key of the map must be one of names; the others are told with the nearest name. */
void hs_node_known(hs_node *map, const char *what, const char *const *names, size_t n, hs_errors *);
#endif
