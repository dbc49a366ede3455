/* gpu.c - see gpu.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "../kernels/device.h"
#include "gpu.h"
#include "protocol.h"

enum { GPU_SECONDS = 60 };              /* for a driver to start, and for the child to answer */

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

json_t *hs_device_json(const char *name)
{
    char text[256], why[256], next[32];
    k_dev *dev;
    int count = 0;
    if (k_dev_open(name, 1, &dev, text, sizeof text)) return json_pack("{s:o}", "refused", hs_json_text(text));
    json_t *said = hs_json_text(k_dev_describe(dev, text, sizeof text));
    int cuda = k_dev_is_cuda(dev);
    do {
        k_dev_close(dev);
        snprintf(next, sizeof next, "cuda:%d", ++count);
    } while (cuda && k_dev_open(next, 1, &dev, why, sizeof why) == 0);
    return json_pack("{s:o, s:i}", "device", said, "count", count);
}

/* Why no child need be asked, or NULL. */
static const char *missing(void)
{
    char path[PATH_MAX], object[PATH_MAX + 64];
    Dl_info here;
    if (!dladdr((void *)k_dev_open, &here) || !here.dli_fname) return "no CUDA device: the library cannot be found";
    snprintf(path, sizeof path, "%s", here.dli_fname);
    snprintf(object, sizeof object, "%s/%s", dirname(path), K_CUDA_OBJECT);
    if (access(object, R_OK)) return "no CUDA device: this build has no CUDA half";
    if (access("/dev/nvidiactl", F_OK)) return "no CUDA device: this machine has no NVIDIA driver";
    return NULL;
}

/* A copy of this process that opens the device and answers on *fd; 0 when there is no room for one. */
static pid_t start(int *fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(hs_line_write(ends[1], hs_device_json("cuda")) != 0);
    }
    close(ends[1]);
    if (pid < 0) close(ends[0]);
    *fd = ends[0];
    return pid > 0 ? pid : 0;
}

/* The child's line, waited for; NULL when none came in time. */
static json_t *hear(int fd)
{
    hs_lines lines = {0};
    json_t *said = NULL;
    double deadline = now_seconds() + GPU_SECONDS;
    for (int got = 1; !said && got > 0; ) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int left = (int)(1e3 * (deadline - now_seconds()));
        if (left <= 0 || poll(&p, 1, left) <= 0) break;
        got = hs_lines_read(&lines, fd);
        char *line = hs_lines_next(&lines);
        if (line) said = json_loads(line, 0, NULL);
    }
    hs_lines_release(&lines);
    return said;
}

int hs_gpu_ask(const char **text)
{
    static char answer[512];
    static int asked, count;
    const char *why = missing();
    int fd = -1;
    *text = answer;
    if (asked++) return count;
    snprintf(answer, sizeof answer, "%s", why ? why : "no CUDA device: the driver does not answer");
    pid_t child = why ? 0 : start(&fd);
    if (!child) return 0;
    json_t *said = hear(fd);
    const char *device = json_string_value(json_object_get(said, "device")), *refused = json_string_value(json_object_get(said, "refused"));
    count = (int)json_integer_value(json_object_get(said, "count"));
    if (device || refused) snprintf(answer, sizeof answer, "%s", device ? device : refused);
    json_decref(said);
    close(fd);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return count;
}
