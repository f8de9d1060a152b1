// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Receive: the poll, its end, delivery. */
#include <linux/etherdevice.h>

#include "bpfhv_xdp.h"

/* Time until the next poll if there was no memory for buffers. */
#define BPFHV_REFILL_RETRY_NS	(100 * NSEC_PER_MSEC)

enum hrtimer_restart bpfhv_rx_timer(struct hrtimer *timer)
{
	struct bpfhv_queue *q = container_of(timer, struct bpfhv_queue, rx_timer);

	napi_schedule_irqoff(&q->napi);
	return HRTIMER_NORESTART;
}

static void bpfhv_rx_deliver(struct bpfhv_queue *q, struct sk_buff *skb, bool polling)
{
	skb_record_rx_queue(skb, q->index);
	skb->protocol = eth_type_trans(skb, q->bp->netdev);
	if (likely(polling))
		napi_gro_receive(&q->napi, skb);
	else
		netif_receive_skb(skb);
}

/* Takes the packet that rxc left in the context. Returns as bpfhv_rx_packet(). */
static int bpfhv_rx_take(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff **skb)
{
	struct bpf_prog *prog = bpfhv_xdp_prog(q->bp);
	int ret;

	if (unlikely(prog))
		return bpfhv_xdp_packet(q, r, prog, skb);
	ret = bpfhv_rx_packet(q, r, skb);
	if (ret != 1)
		return ret;
	bpfhv_rx_hash(q->bp, r, *skb);
	if (unlikely(bpfhv_rx_metadata(r, *skb))) {
		kfree_skb(*skb);
		return 0;
	}
	bpfhv_count(q, packets, 1);
	bpfhv_count(q, bytes, (*skb)->len);
	return 1;
}

/*
 * Receives one packet. Returns 1; 0 if there is none; -EAGAIN if the program requests another run
 * before it is armed.
 */
static int bpfhv_rx_one(struct bpfhv_queue *q, struct bpfhv_ring *r, bool polling)
{
	struct sk_buff *skb;
	int ret;

	r->ctx->oflags = 0;
	if (unlikely(r->run_ctx))	/* a helper may fill it */
		memset(&r->ctx->metadata, 0, sizeof(r->ctx->metadata));
	ret = bpfhv_run(r, BPFHV_PROG_RXC);
	if (!ret) {
		u32 oflags = le32_to_cpu(READ_ONCE(r->ctx->oflags));

		return oflags & BPFHV_OFLAG_RESCHED_NEEDED ? -EAGAIN : 0;
	}
	ret = ret == 1 ? bpfhv_rx_take(q, r, &skb) : -EPROTO;
	if (unlikely(ret < 0)) {
		bpfhv_request_reset(q, "rxc returned an invalid packet");
		return ret;
	}
	if (likely(ret == 1))
		bpfhv_rx_deliver(q, skb, polling);
	else if (!ret)
		bpfhv_count(q, dropped, 1);
	return 1;
}

/* Free slots that justify a refill. */
static u32 bpfhv_rx_refill_threshold(const struct bpfhv_ring *r)
{
	return min_t(u32, BPFHV_MAX_BUFS, r->n_bufs / 4);
}

/* Receives up to max packets. Returns their number; *ret is the last result of bpfhv_rx_one(). */
int bpfhv_rx_clean(struct bpfhv_queue *q, struct bpfhv_ring *r, int max, int *ret)
{
	int done = 0;

	*ret = 0;
	while (done < max && bpfhv_outstanding(r) && !q->broken) {
		*ret = bpfhv_rx_one(q, r, true);
		if (*ret != 1)
			break;
		done++;
		if (r->n_free >= bpfhv_rx_refill_threshold(r) && likely(r != q->old))
			bpfhv_rx_refill(q, r);
	}
	return done;
}

/* Learns whether receive polls right after a doorbell find packets. */
static void bpfhv_rx_note_reply(struct bpfhv_queue *q, int done)
{
	if (!READ_ONCE(q->reply_expected))
		return;
	WRITE_ONCE(q->reply_expected, false);
	if (done)
		WRITE_ONCE(q->reply_polls, BPFHV_REPLY_POLLS);
	else if (q->reply_polls)
		WRITE_ONCE(q->reply_polls, q->reply_polls - 1);
}

/* Arms the interrupt. Returns true if there is work, so that no interrupt will come. */
static bool bpfhv_rx_arm(struct bpfhv_queue *q, struct bpfhv_ring *r, int done)
{
	return bpfhv_work_pending(q, q->broken ? 0 : bpfhv_run_intr(r, BPFHV_PROG_RXI, 1), done);
}

/* Polls the queue after a time, unless something else does before. */
static void bpfhv_rx_poll_later(struct bpfhv_queue *q, u64 ns)
{
	if (!hrtimer_is_queued(&q->rx_timer) ||
	    ktime_to_ns(hrtimer_get_remaining(&q->rx_timer)) > (s64)ns)
		hrtimer_start(&q->rx_timer, ns_to_ktime(ns), HRTIMER_MODE_REL_PINNED);
}

/*
 * Ends a poll whose next one waits, so that a task runs first. A poll that used its whole budget
 * must not tell so: NAPI would poll again at once.
 */
static int bpfhv_rx_pause(struct bpfhv_queue *q, u64 ns, int done, int budget)
{
	bpfhv_count(q, pauses, 1);
	bpfhv_rx_poll_later(q, ns);
	done = min(done, budget - 1);
	napi_complete_done(&q->napi, done);
	return done;
}

/*
 * Ends the poll, and arms the interrupt if NAPI agrees: not while a task polls the queue or
 * interrupts are deferred (napi_defer_hard_irqs), because a later poll comes without one.
 *
 * To arm runs a program of the ring, which only the owner of the NAPI may do. So this CPU owns it
 * again meanwhile; if another one does by now, that one will arm. An interrupt before the second
 * completion makes the poll run again. napi_disable() waits for the owner only: nothing touches a
 * ring or a timer without ownership.
 */
static void bpfhv_rx_complete(struct bpfhv_queue *q, int done)
{
	if (!napi_complete_done(&q->napi, done) || !napi_schedule_prep(&q->napi))
		return;
	if (bpfhv_rx_arm(q, q->cur, done)) {
		__napi_schedule(&q->napi);
		return;
	}
	if (unlikely(!q->irq))
		bpfhv_rx_poll_later(q, bpfhv_rx_poll_ns(q->bp));
	napi_complete(&q->napi);
}

int bpfhv_rx_poll(struct napi_struct *napi, int budget)
{
	struct bpfhv_queue *q = container_of(napi, struct bpfhv_queue, napi);
	int done = 0, ret = 0;
	struct bpfhv_ring *r;
	u64 pause;

	/* Netpoll, with a budget of 0, only transmits. */
	if (!budget)
		return 0;
	bpfhv_share_begin(&q->share);
	if (unlikely(READ_ONCE(q->next)))
		bpfhv_rx_handle_next(q);
	r = q->cur;
	bpfhv_run_intr(r, BPFHV_PROG_RXI, 0);
	if (unlikely(q->old) && !bpfhv_rx_clean_old(q, budget, &done))
		ret = -EAGAIN;
	else
		done += bpfhv_rx_clean(q, r, budget - done, &ret);
	bpfhv_rx_note_reply(q, done);
	bpfhv_xdp_flush(q);
	bpfhv_tx_reclaim_from_rx(bpfhv_txq(q->bp, q->index));
	/* Memory ran out. Without buffers no packet and no interrupt comes. */
	if (unlikely(r->n_free >= bpfhv_rx_refill_threshold(r)) && !bpfhv_rx_refill(q, r))
		bpfhv_rx_poll_later(q, BPFHV_REFILL_RETRY_NS);
	pause = bpfhv_share_end(&q->share);
	if (unlikely(pause))
		return bpfhv_rx_pause(q, pause, done, budget);
	/* The program may request another run before the interrupt is armed. */
	if (done == budget || (ret == -EAGAIN && bpfhv_work_pending(q, 1, done)))
		return budget;
	bpfhv_rx_complete(q, done);
	return done;
}

/* Releases every page. The host does not use the ring, and NAPI does not take from it. */
void bpfhv_rx_release(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	u32 i;

	for (i = 0; i < r->n_bufs; i++) {
		struct bpfhv_slot *slot = &r->slots[i];

		if (slot->page)
			page_pool_put_full_page(q->pool, slot->page, false);
		slot->page = NULL;
	}
	bpfhv_ring_reset(r);
}

/* Has the pages outlive their release. */
void bpfhv_rx_keep(struct bpfhv_queue *q)
{
	struct bpfhv_ring *rings[] = { q->old, q->cur, q->next };
	unsigned int n;
	u32 i;

	for (n = 0; n < ARRAY_SIZE(rings); n++)
		for (i = 0; rings[n] && i < rings[n]->n_bufs; i++)
			if (rings[n]->slots[i].page)
				get_page(rings[n]->slots[i].page);
}

static void bpfhv_rx_drain_ring(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	if (!r)
		return;
	local_bh_disable();
	while (bpfhv_outstanding(r) && !q->broken && !q->bp->gone && !bpfhv_xdp_prog(q->bp))
		if (bpfhv_rx_one(q, r, false) != 1)
			break;
	local_bh_enable();
	bpfhv_rx_release(q, r);
}

/*
 * Releases the rings' pages. The device is disabled, and NAPI does not run. Packets completed
 * before that are still delivered, but not around an XDP program, which runs in a poll only.
 */
void bpfhv_rx_drain(struct bpfhv_queue *q)
{
	bpfhv_rx_drain_ring(q, q->old);
	bpfhv_rx_drain_ring(q, q->cur);
	bpfhv_rx_drain_ring(q, q->next);
}
