/*
 * vring_packed's HELPERFREE programs in C, with the accesses of
 * src/devices/vring_packed/guest.ts in the same order.
 */
#include "context.h"

#define DESC_WRITE 0x0002
#define DESC_AVAIL 0x0080
#define DESC_USED 0x8000
#define BOTH (DESC_AVAIL | DESC_USED)
#define EVENT_ALWAYS 0
#define EVENT_NEVER 1
#define EVENT_AT 2
#define LAP_SHIFT __builtin_ctz(BUFS)

struct desc { u64 addr; u32 len, id_flags; };
struct state { u64 cookie; u16 busy, num, next, last; };
typedef volatile struct {
	PUBLIC;
	u16 next_free_id, next_avail_idx, next_used_idx;
	u8 avail_wrap, used_wrap;
	u16 avail_used_flags, pad0[27];
	u32 host_indices, host_wraps;
	u16 device_event_flags, pad1[27];
	u64 state_ofs;
	u32 num_desc, pad2[13];
	u32 driver_event, pad3[15];
	u32 device_event, pad4[15];
	struct desc ring[BUFS];
	struct state states[BUFS];
} ctx;

INLINE int publish_slot(ctx *c, u32 i, u32 writable)
{
	u32 index = c->next_avail_idx, id = c->next_free_id & MASK, flags, carry;
	volatile struct state *state = &c->states[id];
	volatile struct desc *slot = &c->ring[index & MASK];

	if (state->busy != 0)
		return 0;
	state->busy = 1;
	state->cookie = c->bufs[i].cookie;
	c->next_free_id = state->next;
	slot->addr = c->bufs[i].paddr;
	slot->len = c->bufs[i].len;
	flags = c->avail_used_flags;
	carry = (index + 1) >> LAP_SHIFT;
	c->next_avail_idx = (index + 1) & MASK;
	c->avail_wrap = c->avail_wrap ^ (u8)carry;
	c->avail_used_flags = flags ^ (carry * BOTH);
	__sync_lock_test_and_set(&slot->id_flags, id | ((flags | writable) << 16));
	return 1;
}

INLINE u32 kick_wanted(ctx *c, u32 count)
{
	u32 event = c->device_event, mode = event >> 16, lap, distance;

	if (mode == EVENT_ALWAYS)
		return 1;
	if (mode != EVENT_AT)
		return 0;
	lap = (((event >> 15) ^ c->avail_wrap) & 1) * BUFS;
	distance = c->next_avail_idx - ((event & 0x7fff) - lap) - 1;
	return (distance & 0xffff) < count ? 1 : 0;
}

SECTION(txp) int txp_program(ctx *c)
{
	if (c->num_bufs != 1)
		return -1;
	if (!publish_slot(c, 0, 0))
		return -1;
	c->oflags = kick_wanted(c, 1);
	return 0;
}

SECTION(rxp) int rxp_program(ctx *c)
{
	u32 count = c->num_bufs;

	if (count > MAX_BUFS)
		return -1;
	for (u32 i = 0; i < count; i++) {
		if (!publish_slot(c, i, DESC_WRITE))
			return -1;
	}
	c->oflags = kick_wanted(c, count);
	return 0;
}

INLINE int take_slot(ctx *c, u32 index, u32 id_flags, u32 wrap, u32 i)
{
	u32 id = id_flags & 0xffff;
	volatile struct state *state = &c->states[id & MASK];
	volatile struct desc *slot = &c->ring[index & MASK];

	if (id >= BUFS)
		return 0;
	if (state->busy == 0)
		return 0;
	state->busy = 0;
	c->bufs[i].cookie = state->cookie;
	c->bufs[i].paddr = slot->addr;
	c->bufs[i].len = slot->len;
	state->next = c->next_free_id;
	c->next_free_id = id;
	c->next_used_idx = (index + 1) & MASK;
	c->used_wrap = wrap ^ ((index + 1) >> LAP_SHIFT);
	return 1;
}

INLINE u32 state_of_slot(u32 id_flags, u32 wrap)
{
	return ((id_flags >> 16) & BOTH) ^ (wrap * BOTH);
}

INLINE int collect(ctx *c)
{
	u32 index = c->next_used_idx & MASK, wrap = c->used_wrap & 1, id_flags;

	c->oflags = 0;
	id_flags = c->ring[index].id_flags;
	if (state_of_slot(id_flags, wrap) != 0)
		return 0;
	if (!take_slot(c, AFTER(index, id_flags), id_flags, wrap, 0))
		return -1;
	c->num_bufs = 1;
	return 1;
}

SECTION(txc) int txc_program(ctx *c) { return collect(c); }
SECTION(rxc) int rxc_program(ctx *c) { return collect(c); }

INLINE void bring_host(ctx *c)
{
	u32 slot = c->next_used_idx, wrap = c->used_wrap;

	c->host_indices = slot | (slot << 16);
	c->host_wraps = (wrap * 0x0101) | ((wrap * BOTH) << 16);
}

INLINE void interrupt_on_next(ctx *c)
{
	c->driver_event = c->next_used_idx | ((u32)c->used_wrap << 15) | (EVENT_AT << 16);
}

INLINE int reclaim(ctx *c, u32 most)
{
	u32 count = 0;

	c->oflags = 0;
	for (u32 i = 0; i < most; i++) {
		u32 index = c->next_used_idx & MASK, wrap = c->used_wrap & 1;
		u32 id_flags = c->ring[index].id_flags;
		u32 state = state_of_slot(id_flags, wrap);

		if (state != 0 && state != DESC_USED)
			break;
		if (!take_slot(c, index, id_flags, wrap, i))
			return -1;
		if (state != 0)
			bring_host(c);
		count = i + 1;
	}
	interrupt_on_next(c);
	if (count == 0)
		return 0;
	c->num_bufs = count;
	return 1;
}

SECTION(txr) int txr_program(ctx *c) { return reclaim(c, 1); }
SECTION(rxr) int rxr_program(ctx *c) { return reclaim(c, MAX_BUFS); }

INLINE int arm(ctx *c)
{
	u32 wanted = c->min_completed_bufs, target, wrap, index;

	if (wanted == 0) {
		c->driver_event = EVENT_NEVER << 16;
		return 0;
	}
	if (wanted > BUFS)
		return -1;
	target = (c->next_used_idx & MASK) + wanted - 1;
	wrap = (c->used_wrap ^ (target >> LAP_SHIFT)) & 1;
	index = target & MASK;
	__sync_lock_test_and_set(&c->driver_event, index | (wrap << 15) | (EVENT_AT << 16));
	return state_of_slot(c->ring[index].id_flags, wrap) == 0 ? 1 : 0;
}

SECTION(txi) int txi_program(ctx *c) { return arm(c); }
SECTION(rxi) int rxi_program(ctx *c) { return arm(c); }
