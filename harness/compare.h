/* compare.h - two sets of cells held against each other, pair by pair.
 *
 * A side is a database, an experiment in one, or what a commit computed: DB, DB:EXPERIMENT, EXPERIMENT, COMMIT, and any of
 * them @COMMIT.  Cells are of one question when all their coordinates are equal but the seed and what is compared: those
 * that have one value on one side and another one on the other.  Of a question that a side has answered twice (by two
 * builds) the later answer counts.
 *
 * The samples of a question are all values of a sample_ metric (sample_seconds), or the last value of another metric of
 * each seed.  docs/compare.md has the verdicts. */
#ifndef HS_COMPARE_H
#define HS_COMPARE_H
#include <jansson.h>
#include "stats.h"
#include "store.h"

typedef struct hs_side_cell {
    char *key, *label;
    json_t *at;                         /* coordinates: {"task.options.length": 1024, "dtype": "f32", ...} */
    enum hs_status status;
    char *reason;
    sqlite3_int64 env;                  /* 0: not recorded */
} hs_side_cell;
typedef struct hs_side {
    hs_store *store;
    char *name;                         /* as it was asked for */
    hs_side_cell *cell;
    size_t ncells;
} hs_side;
/* Opens a side and reads its cells; db: where experiments and commits are sought.  0, or -1 with a sentence. */
int  hs_side_open(hs_side *, const char *name, const char *db, char *why, size_t nwhy);
void hs_side_release(hs_side *);

enum hs_verdict { HS_SAME, HS_FASTER, HS_SLOWER, HS_LESS, HS_MORE, HS_AMBIGUOUS, HS_LOST, HS_GAINED, HS_VERDICTS };
extern const char *const hs_verdict_names[HS_VERDICTS];

typedef struct hs_pair {
    const hs_side_cell *a, *b;          /* one of the seeds on each side */
    double median_a, median_b, p;
    size_t na, nb;                      /* samples */
    hs_interval ratio;                  /* of b's median to a's; NaN where a's is not positive */
    enum hs_verdict verdict;
} hs_pair;

typedef struct hs_comparison {
    const char *metric;
    int is_time;                        /* the metric's unit is s */
    double threshold;                   /* 0.03 */
    json_t *compared;                   /* {coordinate: [in a, in b]} */
    hs_pair *pair;
    size_t npairs, count[HS_VERDICTS];
    size_t alone_a, alone_b, unanswered;    /* questions that one side alone asks; pairs without a value on either side */
} hs_comparison;
/* metric NULL: sample_seconds, or seconds when a has none.  0, or -1 with a sentence. */
int  hs_compare(hs_comparison *, const hs_side *a, const hs_side *b, const char *metric, double threshold, char *why, size_t nwhy);
/* The first difference between the machines of two paired cells that times depend on, as a sentence in why; 0: none. */
int  hs_compare_machines(const hs_comparison *, const hs_side *a, const hs_side *b, char *why, size_t nwhy);
void hs_comparison_release(hs_comparison *);
/* The names of coordinates that differ among the cells of a, but those of the variant, which the label tells: an array. */
json_t *hs_side_axes(const hs_side *);
#endif
