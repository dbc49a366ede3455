/* protocol.h - what runner and worker say to each other, one JSON object per line.
 *
 * The worker is this program run as `harness worker`, in a process group of its own; its stdin carries cells,
 * descriptor HS_WORKER_FD its answers, and its stdout and stderr go to the cell's log: a plug-in may print what
 * it likes.  Numbers that JSON has not are the strings "nan", "inf", "-inf".
 *
 * runner -> worker  {"cell":KEY,"doc":{..hs_cell.doc..},"variant_path":P,"task_path":P,"others":{NAME:P}|null,"threads":N,
 *                    "memory":BYTES|0,"checkpoint":PATH|null,"place":"cuda:1"|null}
 *                   {"check":PATH,"device":D}
                   {"draw":FILE,"set":[..],"device":D|null,"db":F}    no answer: figures
 * worker -> runner  {"t":"start","cell":KEY}
 *                   {"t":"progress","step":N,"of":N,"what":"eval_loss","value":X}
 *                   {"t":"metric","name":S,"unit":S,"step":N,"value":X}
 *                   {"t":"end","status":"done|refused|diverged|oom|interrupted|crashed|wrong","reason":S|null}
 *                   {"t":"verdict","ok":true|false,"reason":S|null,"report":{..}}
 * A worker that closes its pipe without "end" has crashed; how is read from wait status.  SIGTERM asks it to end
 * the cell soon as interrupted; after a grace it is killed.  The same lines in a file are what merging reads. */
#ifndef HS_PROTOCOL_H
#define HS_PROTOCOL_H
#include <jansson.h>
enum { HS_WORKER_FD = 3 };
enum { HS_EXIT_DEAF = 70 };             /* a worker that cannot answer any more ends with this code */
json_t *hs_json_number(double);         /* exact: 17 digits; nan and inf as strings */
double  hs_json_double(const json_t *); /* either form; NAN when it is neither */
/* A JSON string of any bytes: what is not UTF-8 or not printable becomes '?'; NULL becomes null. */
json_t *hs_json_text(const char *);
void    hs_clean_text(char *);          /* the same in place; newlines and tabs stay */

/* Lines as they come out of a pipe. */
typedef struct hs_lines { char *text; size_t used, taken, size; } hs_lines;
enum { HS_LINE_MAX = 4 << 20 };         /* a longer line is no message */
enum { HS_LINES_END = 0, HS_LINES_WAIT = -1, HS_LINES_BAD = -2 };
int   hs_lines_read(hs_lines *, int fd);    /* bytes read > 0, or HS_LINES_END, _WAIT (nothing now), _BAD */
char *hs_lines_next(hs_lines *);            /* the next whole line, valid until the next read; NULL: none yet */
void  hs_lines_release(hs_lines *);
int   hs_line_write(int fd, const json_t *);    /* one object and a newline, whole; -1 when the reader is gone */

int     hs_worker_main(void);           /* `harness worker` */
#endif
