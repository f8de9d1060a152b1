// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Transmit. Everything here runs under the netdev transmit lock of its queue.
 *
 * Notifications are the main cost of a virtual NIC. So completions are reclaimed when the next
 * packet is sent or received, or by a timer soon after. An interrupt is requested only if the queue
 * is stopped, for half of what is outstanding. The doorbell is written once per burst, if the host
 * requested a kick.
 */
#include <linux/netdevice.h>

#include "bpfhv.h"

/* Slots that most packets need at most, bounded so that small rings still work. */
static u32 bpfhv_tx_room(const struct bpfhv_ring *r)
{
	u32 most = (r->selected & BPFHV_F_SG) ? MAX_SKB_FRAGS + 1 : 1;

	return min(most, r->n_bufs / 2);
}

/* Returns true if the stack must wait: held packets come first. */
static bool bpfhv_tx_blocked(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	return r->n_free < bpfhv_tx_room(r) || unlikely(!skb_queue_empty(&q->held));
}

/*
 * Reclaims up to max completed packets. The loop ends whatever the host does: each outstanding
 * buffer completes at most once.
 */
unsigned int bpfhv_tx_reclaim(struct bpfhv_queue *q, struct bpfhv_ring *r, int max, int budget)
{
	unsigned int packets = 0, bytes = 0;
	int ret = 0;

	while (packets < max && bpfhv_outstanding(r) && !q->broken) {
		ret = bpfhv_run(r, BPFHV_PROG_TXC);
		if (ret != 1)
			break;
		ret = bpfhv_tx_return(q, r, budget, &bytes);
		if (ret)
			break;
		packets++;
	}
	if (unlikely(ret < 0))
		bpfhv_request_reset(q, "txc returned an invalid completion");
	if (packets)
		netdev_tx_completed_queue(bpfhv_netdev_txq(q), packets, bytes);
	return packets;
}

/* The ring that was replaced: its packets are sent first. */
unsigned int bpfhv_tx_reclaim_old(struct bpfhv_queue *q, int budget)
{
	if (likely(!q->old))
		return 0;
	return bpfhv_tx_reclaim(q, q->old, q->old->n_bufs, budget);
}

/*
 * Requests an interrupt after half of what is outstanding. Returns non-zero if that many are
 * complete already, so that no interrupt will come.
 */
static int bpfhv_tx_arm(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	u32 out = bpfhv_outstanding(r);

	if (!out || q->broken)
		return 0;
	return bpfhv_run_intr(r, BPFHV_PROG_TXI, 1 + out / 2);
}

/*
 * Polls the receive ring right after a doorbell. A doorbell is a trap: if CPUs are scarce, the host
 * works right then, in place of this guest, and what it sends in reply is in the receive ring long
 * before its interrupt arrives. So the receive interrupt is disarmed meanwhile. If the host has its
 * own CPU, the doorbell returns at once, the polls find nothing, and they soon stop.
 *
 * Returns the receive queue, whose poll the caller schedules, or NULL.
 */
static struct bpfhv_queue *bpfhv_tx_poll_reply(struct bpfhv_queue *q)
{
	struct bpfhv_queue *rxq = &q->bp->queues[q->index - q->bp->n_pairs];

	if (!READ_ONCE(rxq->reply_polls) && q->stats.kicks % BPFHV_REPLY_PROBE)
		return NULL;
	if (!napi_schedule_prep(&rxq->napi))
		return NULL;
	WRITE_ONCE(rxq->reply_expected, true);
	bpfhv_run_intr(rxq->cur, BPFHV_PROG_RXI, 0);
	return rxq;
}

void bpfhv_tx_kick(struct bpfhv_queue *q)
{
	struct bpfhv_queue *rxq;

	if (!q->kick_pending)
		return;
	q->kick_pending = false;
	rxq = bpfhv_tx_poll_reply(q);
	bpfhv_kick(q);
	if (rxq)
		__napi_schedule(&rxq->napi);
}

enum hrtimer_restart bpfhv_tx_timer(struct hrtimer *timer)
{
	struct bpfhv_queue *q = container_of(timer, struct bpfhv_queue, tx_timer);

	napi_schedule_irqoff(&q->napi);
	return HRTIMER_NORESTART;
}

/*
 * Ensures that what is outstanding is reclaimed: by the timer, or by an interrupt if the stack
 * waits for it. Returns as bpfhv_tx_arm().
 */
int bpfhv_tx_schedule_reclaim(struct bpfhv_queue *q, struct bpfhv_ring *r,
			      struct netdev_queue *txq)
{
	/* What the stack waits for may be in the old ring. */
	if (netif_xmit_stopped(txq) && q->irq && likely(!q->old))
		return bpfhv_tx_arm(q, r);
	/* A callback on another CPU may be past its reclaim: start the timer again. */
	if ((bpfhv_outstanding(r) || q->old) && !q->broken && !hrtimer_is_queued(&q->tx_timer))
		hrtimer_start(&q->tx_timer, ns_to_ktime(bpfhv_tx_delay_ns(q->bp)),
			      HRTIMER_MODE_REL_PINNED);
	return 0;
}

/* After a reclaim: sends what is held, and wakes the queue if there is room for more. */
static void bpfhv_tx_resume(struct bpfhv_queue *q, struct bpfhv_ring *r, struct netdev_queue *txq)
{
	if (!netif_tx_queue_stopped(txq) || q->broken)
		return;
	bpfhv_tx_send_held(q, r);
	bpfhv_tx_kick(q);
	if (!bpfhv_tx_blocked(q, r))
		netif_tx_wake_queue(txq);
}

/* After a change of rings. */
void bpfhv_tx_continue(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);

	bpfhv_tx_kick(q);
	bpfhv_tx_resume(q, q->cur, txq);
	if (bpfhv_tx_schedule_reclaim(q, q->cur, txq))
		napi_schedule(&q->napi);
}

/* Called by the receive poll of the same pair: a queue that receives has mostly sent before. */
void bpfhv_tx_reclaim_from_rx(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	struct bpfhv_ring *r;

	if (!__netif_tx_trylock(txq))
		return;
	r = q->cur;
	if (bpfhv_outstanding(r) || q->old) {
		bpfhv_tx_reclaim_old(q, 1);
		bpfhv_tx_reclaim(q, r, r->n_bufs, 1);
		bpfhv_tx_resume(q, r, txq);
	}
	__netif_tx_unlock(txq);
}

static void bpfhv_tx_stop_if_full(struct bpfhv_queue *q, struct bpfhv_ring *r,
				  struct netdev_queue *txq)
{
	if (likely(!bpfhv_tx_blocked(q, r) || q->broken))
		return;
	netif_tx_stop_queue(txq);
	bpfhv_count(q, stops, 1);
	/* Completions may have come before the interrupt was armed: reclaim again. */
	if (bpfhv_tx_arm(q, r)) {
		bpfhv_tx_reclaim(q, r, r->n_bufs, 0);
		bpfhv_tx_send_held(q, r);
	}
	if (!bpfhv_tx_blocked(q, r))
		netif_tx_start_queue(txq);
}

/*
 * Ends a burst: kicks the host for all its packets, even if the last one failed, and ensures that
 * the completions are reclaimed.
 */
static void bpfhv_tx_flush(struct bpfhv_queue *q, struct bpfhv_ring *r, struct netdev_queue *txq)
{
	bpfhv_tx_kick(q);
	bpfhv_tx_reclaim(q, r, BPFHV_TX_RECLAIM_XMIT, 0);
	/* No interrupt will come: the poll reclaims, wakes the queue, and arms again. */
	if (unlikely(bpfhv_tx_schedule_reclaim(q, r, txq)))
		napi_schedule(&q->napi);
}

/*
 * Sends one packet, for which the ring has room, or drops it. Returns true if the burst ends here.
 */
bool bpfhv_tx_send(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb, bool more)
{
	unsigned int len = skb->len;

	if (unlikely(q->broken))
		goto drop;
	skb_tx_timestamp(skb);
	if (unlikely(bpfhv_tx_publish(q, r, skb)))
		goto drop;
	bpfhv_count(q, packets, 1);
	bpfhv_count(q, bytes, len);
	/* First: what follows may reclaim this packet. */
	return __netdev_tx_sent_queue(bpfhv_netdev_txq(q), len, more);
drop:
	bpfhv_count(q, dropped, 1);
	dev_kfree_skb_any(skb);
	return true;
}

netdev_tx_t bpfhv_start_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	struct bpfhv_queue *q = bpfhv_txq(bp, skb_get_queue_mapping(skb));
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	struct bpfhv_ring *r = q->cur;
	bool flush = true;

	if (bpfhv_outstanding(r) >= BPFHV_TX_RECLAIM_XMIT / 2 || r->n_free < bpfhv_tx_room(r))
		bpfhv_tx_reclaim(q, r, BPFHV_TX_RECLAIM_XMIT, 0);
	bpfhv_tx_stop_if_full(q, r, txq);
	if (unlikely(netif_tx_queue_stopped(txq))) {
		bpfhv_tx_kick(q);
		return NETDEV_TX_BUSY;
	}
	if (likely(q->broken ||
		   (bpfhv_tx_can_send(r, skb) && bpfhv_tx_bufs(skb) <= r->n_free)))
		flush = bpfhv_tx_send(q, r, skb, netdev_xmit_more());
	else
		bpfhv_tx_hold(q, r, skb);
	bpfhv_tx_stop_if_full(q, r, txq);
	if (flush || netif_xmit_stopped(txq))
		bpfhv_tx_flush(q, r, txq);
	return NETDEV_TX_OK;
}

int bpfhv_tx_poll(struct napi_struct *napi, int budget)
{
	struct bpfhv_queue *q = container_of(napi, struct bpfhv_queue, napi);
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	struct bpfhv_ring *r;
	unsigned int packets;
	bool again;

	/* Netpoll may run because the lock is held. */
	if (budget)
		__netif_tx_lock(txq, smp_processor_id());
	else if (!__netif_tx_trylock(txq))
		return 0;
	r = q->cur;
	packets = bpfhv_tx_reclaim_old(q, budget);
	packets += bpfhv_tx_reclaim(q, r, r->n_bufs, budget);
	bpfhv_tx_resume(q, r, txq);
	again = bpfhv_work_pending(q, bpfhv_tx_schedule_reclaim(q, r, txq), packets);
	__netif_tx_unlock(txq);

	if (again && budget)
		return budget;
	if (budget)
		napi_complete_done(napi, 0);
	return 0;
}
