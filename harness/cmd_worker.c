/* cmd_worker.c - `harness worker`: see protocol.h. */
#include "command.h"
#include "protocol.h"

/* Serves cells from stdin until it ends. */
int cmd_worker(int argc, char **argv)
{
    (void)argc, (void)argv;
    return hs_worker_main();
}
