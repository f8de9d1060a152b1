// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Packets that cannot be sent as they are, or not yet: of features that the set lacks, of more
 * buffers than a ring takes, or than it has free. They are finished in software, and held in order
 * until the ring has room; the queue is stopped meanwhile. Everything here runs under the netdev
 * transmit lock, as in tx.c.
 */
#include <linux/netdevice.h>

#include "bpfhv.h"

/* Copies a packet into one buffer. */
static bool bpfhv_tx_linearize(struct bpfhv_queue *q, struct sk_buff *skb)
{
	/* Ring formats may have 16 bits for a length. */
	if (skb->len > U16_MAX || __skb_linearize(skb))
		return false;
	bpfhv_count(q, linearized, 1);
	return true;
}

/*
 * Returns a list of packets that the set can send and that fit an empty ring, except if memory ran
 * out.
 */
static struct sk_buff *bpfhv_tx_prepare(struct bpfhv_queue *q, struct bpfhv_ring *r,
					struct sk_buff *skb, u32 most)
{
	if (bpfhv_tx_can_send(r, skb) &&
	    (bpfhv_tx_bufs(skb) <= most || bpfhv_tx_linearize(q, skb)))
		return skb;
	skb = bpfhv_tx_sw_fallback(r, skb);
	if (skb)
		bpfhv_count(q, softened, 1);
	else
		bpfhv_count(q, dropped, 1);
	return skb;
}

/* Sends held packets, in order, while the ring has room. */
void bpfhv_tx_send_held(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	struct sk_buff *skb;

	while (!q->broken && (skb = skb_peek(&q->held))) {
		u32 bufs = bpfhv_tx_bufs(skb);

		if (bufs > r->n_free)
			bpfhv_tx_reclaim(q, r, r->n_bufs, 0);
		if (bufs > r->n_free)
			break;
		__skb_unlink(skb, &q->held);
		bpfhv_tx_send(q, r, skb, !skb_queue_empty(&q->held));
	}
}

/*
 * Sends a packet that cannot be sent as it is, or not yet. What the ring has no room for is held:
 * the caller stops the queue.
 */
void bpfhv_tx_hold(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	u32 most = min_t(u32, BPFHV_MAX_BUFS, r->n_bufs);
	struct sk_buff *next;

	skb_list_walk_safe(bpfhv_tx_prepare(q, r, skb, most), skb, next) {
		skb_mark_not_on_list(skb);
		if (bpfhv_tx_bufs(skb) <= most || bpfhv_tx_linearize(q, skb)) {
			__skb_queue_tail(&q->held, skb);
			continue;
		}
		bpfhv_count(q, dropped, 1);
		dev_kfree_skb_any(skb);
	}
	bpfhv_tx_send_held(q, r);
	bpfhv_count(q, held, skb_queue_len(&q->held));
}

void bpfhv_tx_drop_held(struct bpfhv_queue *q)
{
	bpfhv_count(q, dropped, skb_queue_len(&q->held));
	__skb_queue_purge(&q->held);
}
