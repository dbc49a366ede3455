/* protocol.h - what runner and worker say to each other, one JSON object per line.
 *
 * The worker is this program run as `harness worker`, in a process group of its own; its stdin carries cells,
 * descriptor HS_WORKER_FD its answers, and its stdout and stderr go to the cell's log: a plug-in may print what
 * it likes.  Numbers that JSON has not are the strings "nan", "inf", "-inf".
 *
 * runner -> worker  {"cell":KEY,"doc":{..hs_cell.doc..},"variant_path":P,"task_path":P,"threads":N,
 *                    "memory":BYTES|0,"checkpoint":PATH|null}
 * worker -> runner  {"t":"start","cell":KEY}
 *                   {"t":"progress","step":N,"of":N,"what":"eval_loss","value":X}
 *                   {"t":"metric","name":S,"unit":S,"step":N,"value":X}
 *                   {"t":"end","status":"done|refused|diverged|oom|interrupted|crashed|wrong","reason":S|null}
 * A worker that closes its pipe without "end" has crashed; how is read from wait status.  SIGTERM asks it to end
 * the cell soon as interrupted; after a grace it is killed.  The same lines in a file are what merging reads. */
#ifndef HS_PROTOCOL_H
#define HS_PROTOCOL_H
#include <jansson.h>
enum { HS_WORKER_FD = 3 };
json_t *hs_json_number(double);         /* exact: 17 digits; nan and inf as strings */
double  hs_json_double(const json_t *); /* either form; NAN when it is neither */
int     hs_worker_main(void);           /* `harness worker` */
#endif
