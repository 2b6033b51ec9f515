/* The decision on the outputs of net.h: the greatest sum over time.
 *
 * Made by stl-deploy of one version from net.nir.
 */
#include <string.h>

#include "decide.h"

static int64_t scores[NET_CLASSES];
static int32_t steps_seen;

void net_decide_reset(void)
{
    memset(scores, 0, sizeof scores);
    steps_seen = 0;
}

void net_decide(const int32_t *y)
{
    for (int32_t i = 0; i < NET_CLASSES; i++) {
        const int64_t vote = y[i];

        scores[i] += vote;
    }
    steps_seen++;
}

int net_class(void)
{
    int first = 0;

    for (int i = 1; i < NET_CLASSES; i++)
        if (scores[i] > scores[first])
            first = i;
    return first;
}

int net_sure(int32_t margin)
{
    const int leader = net_class();
    int64_t lead = INT64_MAX;

    if (steps_seen == 0)
        return 0;
    for (int i = 0; i < NET_CLASSES; i++)
        if (i != leader && scores[leader] - scores[i] < lead)
            lead = scores[leader] - scores[i];
    return lead >= (int64_t)margin * steps_seen;
}
