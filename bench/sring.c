/*
 * sring's HELPERFREE programs in C, with the same order of accesses as src/devices/sring/guest.ts and the same
 * constants: what bench/compiler-vs-clang.ts compares our compiler with. BUFS is given on the command line.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

struct buf { u64 cookie, paddr, vaddr; u32 len, reserved; };
struct desc { u64 cookie, paddr; u32 len, pad; };
struct context {
	u64 guest_priv, packet;
	u32 num_bufs, iflags, oflags, min_completed_bufs, min_intr_nsecs, reserved[3];
	struct buf bufs[64];
	u32 prod, intr, barrier, pad0[29];
	u32 cons, kick_enabled, pad1[30];
	u32 qmask, pad2[31];
	u32 clear, pad3[31];
	struct desc ring[BUFS];
};
typedef volatile struct context ctx;

#define SECTION(name) __attribute__((section(#name), used))
#define INLINE static inline __attribute__((always_inline))
/* An address dependency that the compiler must not see through. */
#define AFTER(value, loaded) ({ u32 x_ = (value) ^ (loaded); asm volatile("" : "+r"(x_)); x_ ^ (loaded); })

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

INLINE int publish(ctx *c, u32 count)
{
	u32 oflags = 0;

	/* clang 19 makes this a plain locked add, which is no barrier; the count of instructions is the same. */
	__sync_fetch_and_add(&c->prod, count);
	if (c->kick_enabled != 0) {
		c->kick_enabled = 0;
		oflags = 1;
	}
	c->oflags = oflags;
	return 0;
}

SECTION(txp) int txp_program(ctx *c)
{
	u32 count = c->num_bufs;

	if (count != 1)
		return -1;
	fill(&c->ring[c->prod & (BUFS - 1)], &c->bufs[0]);
	return publish(c, count);
}

SECTION(rxp) int rxp_program(ctx *c)
{
	u32 count = c->num_bufs, prod;

	if (count > 64)
		return -1;
	prod = c->prod;
	for (u32 i = 0; i < count; i++)
		fill(&c->ring[(prod + i) & (BUFS - 1)], &c->bufs[i]);
	return publish(c, count);
}

INLINE int take_completed(ctx *c)
{
	u32 cons = c->cons, clear = c->clear;

	c->oflags = 0;
	if (clear == cons)
		return 0;
	take(&c->ring[AFTER(clear, cons) & (BUFS - 1)], &c->bufs[0]);
	c->num_bufs = 1;
	c->clear = clear + 1;
	return 1;
}

SECTION(txc) int txc_program(ctx *c) { return take_completed(c); }
SECTION(rxc) int rxc_program(ctx *c) { return take_completed(c); }

SECTION(txi) int txi_program(ctx *c)
{
	u32 wanted = c->min_completed_bufs, done, clear, again;

	if (wanted == 0)
		return 0;
	done = c->cons;
	clear = c->clear;
	if (done - clear >= wanted)
		return 1;
	__sync_lock_test_and_set(&c->intr, clear + wanted - 1);
	again = c->cons;
	return again - c->clear < wanted ? 0 : 1;
}

SECTION(rxi) int rxi_program(ctx *c)
{
	u32 wanted = c->min_completed_bufs, done = c->cons;

	if (done - c->clear < wanted) {
		__sync_lock_test_and_set(&c->intr, 1);
		done = c->cons;
		if (done - c->clear < wanted)
			return 0;
	}
	c->intr = 0;
	return 1;
}

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
		take(&c->ring[(clear + i) & (BUFS - 1)], &c->bufs[i]);
	return 1;
}

SECTION(rxr) int rxr_program(ctx *c) { return reclaim(c, 64); }
SECTION(txr) int txr_program(ctx *c) { return reclaim(c, 1); }
