/*
 * sring's HELPERFREE programs in C, with the accesses of src/devices/sring/guest.ts in the same
 * order and the same constants. bench/compiler-vs-clang.ts compares our compiler with them.
 */
#include "context.h"

struct desc { u64 cookie, paddr; u32 len, pad; };
typedef volatile struct {
	PUBLIC;
	SRING;
	struct desc ring[BUFS];
} ctx;

#include "ring.h"

INLINE void fill(volatile struct desc *slot, volatile struct buf *b)
{
	slot->cookie = b->cookie;
	slot->paddr = b->paddr;
	slot->len = b->len;
}

INLINE void take(volatile struct desc *slot, volatile struct buf *b)
{
	b->cookie = slot->cookie;
	b->paddr = slot->paddr;
	b->len = slot->len;
}

SECTION(txp) int txp_program(ctx *c)
{
	u32 count = c->num_bufs;

	if (count != 1)
		return -1;
	fill(&c->ring[c->prod & MASK], &c->bufs[0]);
	return publish(c, count);
}

SECTION(rxp) int rxp_program(ctx *c)
{
	u32 count = c->num_bufs, prod;

	if (count > MAX_BUFS)
		return -1;
	prod = c->prod;
	for (u32 i = 0; i < count; i++)
		fill(&c->ring[(prod + i) & MASK], &c->bufs[i]);
	return publish(c, count);
}

INLINE int take_completed(ctx *c)
{
	u32 cons = c->cons, clear = c->clear;

	c->oflags = 0;
	if (clear == cons)
		return 0;
	take(&c->ring[AFTER(clear, cons) & MASK], &c->bufs[0]);
	c->num_bufs = 1;
	c->clear = clear + 1;
	return 1;
}

SECTION(txc) int txc_program(ctx *c) { return take_completed(c); }
SECTION(rxc) int rxc_program(ctx *c) { return take_completed(c); }

INLINE int reclaim(ctx *c, u32 most)
{
	u32 prod = c->prod, clear = c->clear, count = prod - clear, cons;

	c->oflags = 0;
	if (count == 0)
		return 0;
	if (count > most)
		count = most;
	c->num_bufs = count;
	cons = c->cons;
	c->clear = clear + count;
	if (cons - clear < count)
		c->cons = clear + count;
	for (u32 i = 0; i < count; i++)
		take(&c->ring[(clear + i) & MASK], &c->bufs[i]);
	return 1;
}

SECTION(rxr) int rxr_program(ctx *c)
{
	interrupt_on_first_received(c);
	return reclaim(c, MAX_BUFS);
}

SECTION(txr) int txr_program(ctx *c)
{
	interrupt_on_first_sent(c);
	return reclaim(c, 1);
}
