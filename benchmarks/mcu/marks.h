/* Included before net.c where instructions are counted by layer. */
#include <stdint.h>

#define NET_MARK mark

void mark(int32_t layer);
