// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What NAPI does while the ring of a receive queue is replaced: it fills the next ring, as only
 * NAPI may allocate from the page pool, goes on in it when the host has, and empties the old one.
 *
 * Packets stay in order without a look at both rings: NAPI looks at the next ring only after the
 * driver has read a register that says that the host has left the current one. What the host
 * published there, it published before that answer.
 */
#include "bpfhv.h"

/* Called by the driver's work. From here on polls fill the ring. */
void bpfhv_rx_start_next(struct bpfhv_queue *q, struct bpfhv_ring *next)
{
	q->next_state = BPFHV_NEXT_FILL;
	/* The ring and the state come first: pairs with bpfhv_rx_handle_next(). */
	smp_store_release(&q->next, next);
}

static void bpfhv_rx_fill_next(struct bpfhv_queue *q, struct bpfhv_ring *next)
{
	bool kick = false;

	/* The host looks at this ring only after the cut, and then without a kick. */
	if (!q->broken && next->n_free)
		bpfhv_rx_publish(q, next, &kick);
	if (!next->n_free) {
		/* The buffers come first, before the host is told: pairs with bpfhv_is_primed(). */
		smp_store_release(&q->next_state, BPFHV_NEXT_FILLED);
	}
}

/* In the poll, if there is a next ring. */
void bpfhv_rx_handle_next(struct bpfhv_queue *q)
{
	/* Pairs with bpfhv_rx_start_next(). */
	struct bpfhv_ring *next = smp_load_acquire(&q->next);
	/* Before what the host published to the old ring is read: pairs with bpfhv_rx_retire(). */
	enum bpfhv_next state = smp_load_acquire(&q->next_state);

	switch (state) {
	case BPFHV_NEXT_FILL:
		bpfhv_rx_fill_next(q, next);
		break;
	case BPFHV_NEXT_USE:
		q->old = q->cur;
		WRITE_ONCE(q->cur, next);
		/* bpfhv_rx_retire() must see the old ring if it sees no next one. */
		smp_store_release(&q->next, NULL);
		break;
	case BPFHV_NEXT_FILLED:
		break;
	}
}

/*
 * In the poll: takes packets from the old ring. Returns true if it is empty; it is not used any
 * more then.
 */
bool bpfhv_rx_clean_old(struct bpfhv_queue *q, int budget, int *done)
{
	struct bpfhv_ring *old = q->old;
	int ret;

	*done = bpfhv_rx_clean(q, old, budget, &ret);
	if (*done == budget || ret == -EAGAIN)
		return false;
	bpfhv_rx_release(q, old);
	/* The last use of it comes first: pairs with bpfhv_rx_retire(). */
	smp_store_release(&q->old, NULL);
	return true;
}

/*
 * Called by the driver's work when the host has left the ring that was the current one at the cut.
 * Returns true if polls have, too.
 */
bool bpfhv_rx_retire(struct bpfhv_queue *q)
{
	/* Before a look at the old ring: pairs with bpfhv_rx_handle_next(). */
	if (smp_load_acquire(&q->next)) {
		/* After the read that said so: pairs with bpfhv_rx_handle_next(). */
		smp_store_release(&q->next_state, BPFHV_NEXT_USE);
		local_bh_disable();
		napi_schedule(&q->napi);
		local_bh_enable();
		return false;
	}
	/* Before it is freed: pairs with bpfhv_rx_clean_old(). */
	return !smp_load_acquire(&q->old);
}
