/* loading.c - no plug-in at all: it dies while it is loaded, if HARNESS_TEST_LOAD says how. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void on_load(void)
{
    const char *how = getenv("HARNESS_TEST_LOAD");
    if (how && !strcmp(how, "segfault")) *(volatile int *)(uintptr_t)getenv("HARNESS_NO_SUCH_VARIABLE") = 1;
    if (how && !strcmp(how, "exit")) exit(0);
}
