/* The decision on the outputs of net.h: the greatest sum over time.
 *
 * Made by stl-deploy of one version from net.nir: integers only, no allocation, no floating point.
 *
 *     net_reset();
 *     net_decide_reset();
 *     for (step = 0; step < steps && !net_sure(margin); step++)
 *         if (net_step(x, y) == 0)
 *             net_decide(y);
 *     found = net_class();
 */
#ifndef DECIDE_H
#define DECIDE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { NET_CLASSES = 3 };

/* Before the first step of each sample. */
void net_decide_reset(void);

/* Take in the outputs of one step. */
void net_decide(const int32_t *y);

/* The class that leads so far: of equals the first. */
int net_class(void);

/* Whether a step was taken and the leader is ahead of the next by `margin` or more in the mean over the steps taken. */
int net_sure(int32_t margin);

#ifdef __cplusplus
}
#endif

#endif
