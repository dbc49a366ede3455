/* gpu.c - see gpu.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "../kernels/device.h"
#include "child.h"
#include "gpu.h"
#include "protocol.h"

enum { GPU_SECONDS = 60 };              /* for a driver to start, and for a child to answer */

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Why no child need be asked, or NULL. */
static const char *missing(void)
{
    char path[PATH_MAX], object[PATH_MAX + 64];
    Dl_info here;
    if (!dladdr((void *)k_dev_open, &here) || !here.dli_fname) return "the library cannot be found";
    snprintf(path, sizeof path, "%s", here.dli_fname);
    snprintf(object, sizeof object, "%s/%s", dirname(path), K_CUDA_OBJECT);
    if (access(object, R_OK)) return "no CUDA device: this build has no CUDA half";
    if (access("/dev/nvidiactl", F_OK)) return "no CUDA device: this machine has no NVIDIA driver";
    return NULL;
}

/* The child's line, waited for; NULL when none came in time. */
static json_t *hear(hs_child *c)
{
    hs_lines lines = {0};
    json_t *said = NULL;
    double deadline = now_seconds() + GPU_SECONDS;
    for (int got = HS_LINES_WAIT; !said && got != HS_LINES_END && got != HS_LINES_BAD && now_seconds() < deadline; ) {
        struct pollfd fd = {.fd = c->out, .events = POLLIN};
        poll(&fd, 1, 100);
        got = hs_lines_read(&lines, c->out);
        char *line = hs_lines_next(&lines);
        if (line) said = json_loads(line, 0, NULL);
    }
    hs_lines_release(&lines);
    return said;
}

int hs_gpu_ask(const char **text)
{
    static const char *const args[] = {"describe", "--device", "cuda", "--fd", "3", NULL};
    static char answer[512];
    static int asked, opens;
    hs_child child;
    *text = answer;
    if (asked++) return opens;
    const char *why = missing();
    snprintf(answer, sizeof answer, "%s", why ? why : "no CUDA device: the child that asks for it does not answer");
    if (why || hs_child_start(&child, args, answer, sizeof answer) < 0) return 0;
    json_t *said = hear(&child);
    const char *device = json_string_value(json_object_get(said, "device")), *refused = json_string_value(json_object_get(said, "refused"));
    opens = device != NULL;
    if (device || refused) snprintf(answer, sizeof answer, "%s", device ? device : refused);
    json_decref(said);
    hs_child_kill(&child);
    return opens;
}
