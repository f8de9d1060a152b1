/* Common code of sring and sring_gso, on their `ctx`: src/devices/sring/guest-ring.ts. */

#ifdef V1
#define ADD_THEN_BARRIER(word, n) ((word) += (n), smp_mb_full())
#define SET_THEN_BARRIER(word, value) ((word) = (value), smp_mb_full())
#else
/* clang 19 makes this a plain locked add, no barrier; the count of instructions is the same. */
#define ADD_THEN_BARRIER(word, n) __sync_fetch_and_add(&(word), n)
#define SET_THEN_BARRIER(word, value) __sync_lock_test_and_set(&(word), value)
#endif

INLINE int publish(ctx *c, u32 count)
{
	u32 oflags = 0;

	ADD_THEN_BARRIER(c->prod, count);
	if (c->kick_enabled != 0) {
#ifndef V1
		c->kick_enabled = 0;
#endif
		oflags = 1;
	}
	c->oflags = oflags;
	return 0;
}

SECTION(txi) int txi_program(ctx *c)
{
	u32 wanted = c->min_completed_bufs, done, clear, again;

	if (wanted == 0)
		return 0;
	done = c->cons;
	clear = c->clear;
	if (done - clear >= wanted)
		return 1;
	SET_THEN_BARRIER(c->intr, clear + wanted - 1);
	again = c->cons;
	return again - c->clear < wanted ? 0 : 1;
}

SECTION(rxi) int rxi_program(ctx *c)
{
	u32 wanted = c->min_completed_bufs, done = c->cons;

	if (done - c->clear < wanted) {
		SET_THEN_BARRIER(c->intr, 1);
		done = c->cons;
		if (done - c->clear < wanted)
			return 0;
	}
	c->intr = 0;
	return 1;
}

/* Called by reclaim: the next driver may arm nothing when it opens. */
INLINE void interrupt_on_first_received(ctx *c) { c->intr = 1; }
INLINE void interrupt_on_first_sent(ctx *c) { c->intr = c->prod; }
