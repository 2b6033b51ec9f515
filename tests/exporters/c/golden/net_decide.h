/* The decision on the outputs of net.h: the greatest sum over time.
 *
 * Made by stl-deploy of one version from net.nir: integers only, no allocation, no floating point.
 *
 * The class of a whole sequence:
 *
 *     net_init(&state);
 *     net_decide_init(&decision);
 *     for (step = 0; step < steps && !net_sure(&decision, margin); step++)
 *         if (net_step(&state, x, y) == 0)
 *             net_decide(&decision, y);
 *     found = net_class(&decision);
 *
 * net_class is of all steps since net_decide_init. For the class of one step alone take net_step_class.
 */
#ifndef NET_DECIDE_H
#define NET_DECIDE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { NET_CLASSES = 3 };

/* The scores of a sequence so far. */
typedef struct net_decision {
    int64_t scores[NET_CLASSES];
    int32_t steps;
} net_decision;

/* Before the first step of each sequence. */
void net_decide_init(net_decision *d);

/* Take in the outputs of one step. */
void net_decide(net_decision *d, const int32_t *y);

/* The class that leads so far: of equals the first. */
int net_class(const net_decision *d);

/* The class that leads in one step's outputs alone: of equals the first. */
int net_step_class(const int32_t *y);

/* Whether a step was taken and the leader is ahead of the next by `margin` or more in the mean over the steps taken. */
int net_sure(const net_decision *d, int32_t margin);

#ifdef __cplusplus
}
#endif

#endif
