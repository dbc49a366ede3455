/* devices.h - for tests that hold one thread's results against three threads': the CPU opened twice, looked at when given back. */
#ifndef TEST_DEVICES_H
#define TEST_DEVICES_H
#include "kernels/kernels.h"

static k_dev *one, *three;

static int open_devices(void **state)
{
    char err[256];
    (void)state;
    return k_dev_open("cpu", 1, &one, err, sizeof err) | k_dev_open("cpu", 3, &three, err, sizeof err);
}

static int close_devices(void **state)
{
    char what[128];
    int rc = k_check_guards(one, what, sizeof what) | k_check_guards(three, what, sizeof what);
    (void)state;
    k_dev_close(one);
    k_dev_close(three);
    return rc;
}
#endif
