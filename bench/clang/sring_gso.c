/*
 * sring_gso's HELPERFREE programs in C, with the accesses of src/devices/sring_gso/guest.ts in the
 * same order. For V1 and CSUM_ONLY see context.h.
 */
#include "context.h"

#define DESC_EOP 1
#define DESC_NEEDS_CSUM 2

/* In a received descriptor the words at 24 and 26 are exchanged. */
struct desc { u64 cookie, paddr; u16 len, flags, csum_start, csum_offset, at24, at26, gso_type, reserved; };
typedef volatile struct {
	PUBLIC;
	SRING;
	struct desc ring[BUFS];
} ctx;

#include "ring.h"

INLINE void put_metadata(ctx *c, volatile struct desc *slot)
{
#ifdef V1
	struct header h = { 0 };
#ifdef CSUM_ONLY
	h.flags = pkt_l4_csum_md_get(c, &h.csum_start, &h.csum_offset);
#else
	pkt_virtio_net_md_get(c, &h);
#endif
#else
#define h c->header
#endif
	slot->csum_start = h.csum_start;
	slot->csum_offset = h.csum_offset;
	slot->at24 = h.hdr_len;
	slot->at26 = h.gso_size;
	slot->gso_type = h.gso_type;
	slot->flags = DESC_EOP | ((h.flags & 1) * DESC_NEEDS_CSUM);
#undef h
}

INLINE int take_metadata(ctx *c, volatile struct desc *slot)
{
#ifdef V1
	struct header h = { 0 };
	int failed;
#else
#define h c->header
#endif
	h.csum_start = slot->csum_start;
	h.csum_offset = slot->csum_offset;
	h.hdr_len = slot->at26;
	h.gso_size = slot->at24;
	h.gso_type = slot->gso_type;
	h.flags = (slot->flags & DESC_NEEDS_CSUM) >> 1;
#ifdef V1
	failed = rx_pkt_alloc(c);
	if (failed < 0)
		return failed;
#ifdef CSUM_ONLY
	if (h.flags)
		pkt_l4_csum_md_set(c, h.csum_start, h.csum_offset);
#else
	pkt_virtio_net_md_set(c, &h);
#endif
#endif
#undef h
	return 1;
}

INLINE u32 fill(ctx *c, u32 prod, u32 count)
{
	u32 lengths = 0;

	for (u32 i = 0; i < count; i++) {
		volatile struct desc *slot = &c->ring[(prod + i) & MASK];
		u32 length = c->bufs[i].len;

		slot->cookie = c->bufs[i].cookie;
		slot->paddr = c->bufs[i].paddr;
		slot->len = length;
		slot->flags = 0;
		lengths |= length;
	}
	return lengths;
}

SECTION(txp) int txp_program(ctx *c)
{
	volatile struct desc *slot;
	u32 count = c->num_bufs, prod;

	if (count == 0 || count > MAX_BUFS)
		return -1;
	prod = c->prod;
	if (fill(c, prod, count) > 0xffff)
		return -1;
	slot = &c->ring[(prod + count - 1) & MASK];
	put_metadata(c, slot);
	return publish(c, count);
}

SECTION(rxp) int rxp_program(ctx *c)
{
	u32 count = c->num_bufs, prod;

	if (count > MAX_BUFS)
		return -1;
	prod = c->prod;
	if (fill(c, prod, count) > 0xffff)
		return -1;
	return publish(c, count);
}

INLINE u16 take(ctx *c, volatile struct desc *slot, u32 i)
{
	c->bufs[i].cookie = slot->cookie;
	c->bufs[i].paddr = slot->paddr;
	c->bufs[i].len = slot->len;
	return slot->flags;
}

INLINE u32 take_packet(ctx *c, u32 limit, u32 clear)
{
	u32 count = 0;

	for (u32 i = 0; i < MAX_BUFS; i++) {
		u16 flags = take(c, &c->ring[(clear + i) & MASK], i);

		count = i + 1;
		if (flags & DESC_EOP)
			break;
		if (clear + count == limit)
			break;
	}
	c->num_bufs = count;
	c->clear = clear + count;
	return count;
}

INLINE u32 take_completed(ctx *c)
{
	u32 cons = c->cons, clear = c->clear;

	c->oflags = 0;
	if (clear == cons)
		return 0;
	return take_packet(c, cons, AFTER(clear, cons));
}

SECTION(txc) int txc_program(ctx *c) { return take_completed(c) == 0 ? 0 : 1; }

SECTION(rxc) int rxc_program(ctx *c)
{
	volatile struct desc *slot;

	if (take_completed(c) == 0)
		return 0;
	slot = &c->ring[(c->clear - 1) & MASK];
	return take_metadata(c, slot);
}

INLINE void bring_cons(ctx *c, u32 clear, u32 count)
{
	if (c->cons - clear < count)
		c->cons = clear + count;
}

SECTION(txr) int txr_program(ctx *c)
{
	u32 prod = c->prod, clear = c->clear;

	interrupt_on_first_sent(c);
	c->oflags = 0;
	if (prod == clear)
		return 0;
	bring_cons(c, clear, take_packet(c, prod, clear));
	return 1;
}

SECTION(rxr) int rxr_program(ctx *c)
{
	u32 clear = c->clear, count = c->prod - clear;

	interrupt_on_first_received(c);
	c->oflags = 0;
	if (count == 0)
		return 0;
	if (count > MAX_BUFS)
		count = MAX_BUFS;
	c->num_bufs = count;
	c->clear = clear + count;
	bring_cons(c, clear, count);
	for (u32 i = 0; i < count; i++)
		take(c, &c->ring[(clear + i) & MASK], i);
	return 1;
}
