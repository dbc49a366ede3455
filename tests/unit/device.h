/* device.h - what tests on a device share: the CPU, opened for a test and looked at when it is given back. */
#ifndef TEST_DEVICE_H
#define TEST_DEVICE_H
#include "kernels/kernels.h"

static k_dev *dev;
static char why[512];

static int open_device(void **state)
{
    (void)state;
    return k_dev_open("cpu", 1, &dev, why, sizeof why);
}

/* Also the leak check of every test: all that was taken from the device was given back. */
static int close_device(void **state)
{
    k_memory m;
    (void)state;
    k_memory_read(dev, &m);
    k_dev_close(dev);
    return m.now == 0 ? 0 : -1;
}
#endif
