/* The decision on the outputs of net.h: the greatest sum over time.
 *
 * Made by stl-deploy of one version from net.nir.
 */
#include <string.h>

#include "net_decide.h"

/* What one step says for a class. */
static int64_t vote_for(const int32_t *y, int32_t i)
{
    return y[i];
}

void net_decide_init(net_decision *d)
{
    (void)memset(d, 0, sizeof *d);
}

void net_decide(net_decision *d, const int32_t *y)
{
    for (int32_t i = 0; i < NET_CLASSES; i++) {
        const int64_t vote = vote_for(y, i);

        d->scores[i] += vote;
    }
    d->steps++;
}

int net_class(const net_decision *d)
{
    int first = 0;

    for (int i = 1; i < NET_CLASSES; i++) {
        if (d->scores[i] > d->scores[first]) {
            first = i;
        }
    }
    return first;
}

int net_step_class(const int32_t *y)
{
    int first = 0;

    for (int i = 1; i < NET_CLASSES; i++) {
        if (vote_for(y, i) > vote_for(y, first)) {
            first = i;
        }
    }
    return first;
}

int net_sure(const net_decision *d, int32_t margin)
{
    const int leader = net_class(d);
    int64_t lead = INT64_MAX;

    if (d->steps == 0) {
        return 0;
    }
    for (int i = 0; i < NET_CLASSES; i++) {
        if (i != leader && d->scores[leader] - d->scores[i] < lead) {
            lead = d->scores[leader] - d->scores[i];
        }
    }
    return lead >= (int64_t)margin * d->steps;
}
