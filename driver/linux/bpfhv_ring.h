/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Queues, rings and generations.
 *
 *   bpfhv_queue       one queue, for as long as the NIC lives: NAPI, interrupt,
 *                     doorbell, statistics
 *     bpfhv_ring      the queue's part of a generation: context, programs, table
 *                     of outstanding buffers
 *   bpfhv_gen         a generation: one program set with its rings. A queue has a
 *                     current ring and, while a set is being replaced, a next one,
 *                     or an old one that is not yet empty.
 */
#ifndef BPFHV_RING_H
#define BPFHV_RING_H

#include <linux/filter.h>
#include <linux/hrtimer.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/netdevice.h>
#include <linux/u64_stats_sync.h>
#include <net/xdp.h>

#include "bpfhv_abi.h"
#include "compat.h"

struct page_pool;
struct bpfhv_priv;
struct bpfhv_queue;

/* One outstanding buffer. The host sees only its index, the cookie. */
struct bpfhv_slot {
	struct sk_buff *skb;	/* TX: on the first buffer of a packet */
	union {
		struct page *page;	/* RX: also kept while the slot is free */
		struct xdp_frame *frame;	/* TX: in place of an skb */
	};
	dma_addr_t dma;
	u32 offset;		/* RX: of the buffer in its page */
	u32 len;		/* bytes mapped */
	u8 n_bufs;		/* TX: buffers of the packet, on its first one */
	bool busy;		/* published, not completed */
	bool paged;		/* TX: mapped with skb_frag_dma_map() */
	bool roomy;		/* RX: of the layout for XDP */
};

/* What a set offers, and what was agreed for it. */
struct bpfhv_terms {
	u32 offered;		/* features */
	u32 selected;
	netdev_features_t features;	/* the stack's flags for the selected ones */
	u32 rx_bufs, tx_bufs;
	u32 rx_ctx_size, tx_ctx_size;
};

/* Receive buffers: bytes of each, before the frame, and for the frame. */
struct bpfhv_rx_layout {
	u32 size;
	u32 headroom;
	u32 len;
};

struct bpfhv_ring {
	struct bpfhv_context *ctx;
	u32 ctx_size;
	/* Verified: the context is this map's value, mapped page by page. */
	struct bpf_map *map;
	dma_addr_t *page_dma;
	u32 n_pages;
	__le64 *page_list;
	dma_addr_t page_list_dma;
	/* Unverified: the context is coherent memory at this address. */
	dma_addr_t ctx_dma;

	struct bpf_prog *prog[BPFHV_PROG_MAX];
	void *run_ctx;		/* Unverified: R1 of the programs */

	struct bpfhv_slot *slots;
	u32 *free_ids;		/* a stack of slot indices */
	u32 n_bufs;
	u32 n_free;
	u32 selected;		/* as the generation's terms: the datapath reads them here */
	netdev_features_t features;
};

struct bpfhv_gen {
	struct kref ref;
	struct bpfhv_priv *bp;
	u32 id;
	bool verified;
	bool staged;		/* made while another one runs, and not in use yet */
	struct bpfhv_terms terms;
	unsigned int n_progs;
	unsigned int n_rings;
	struct bpfhv_ring rings[];
};

enum bpfhv_load_reason {
	BPFHV_LOAD_START,	/* from the device's power-on state */
	BPFHV_LOAD_FEATURES,	/* the user switched some */
	BPFHV_LOAD_UPGRADE,	/* the original's handshake */
};

/* The load of a set while the NIC is down: see set.c. */
struct bpfhv_load {
	struct kthread_work work;
	struct completion made;	/* gen is the result, or an error */
	struct bpfhv_gen *gen;
	int nice;
	/* Under RTNL: */
	bool pending;
	enum bpfhv_load_reason why;
	unsigned long since;
	const struct bpfhv_gen *replaced;	/* not to be used: it may have been freed */
	u32 switched_off;	/* features, while it was made, and before that */
	u32 switched_off_before;
};

enum bpfhv_phase {
	BPFHV_IDLE,
	BPFHV_STAGE,	/* the next set is being verified */
	BPFHV_PRIME,	/* its receive rings are being filled */
	BPFHV_DRAIN,	/* the host has agreed; the old rings are being emptied */
};

/* The replacement of the set while packets flow. Under RTNL. */
struct bpfhv_upgrade {
	enum bpfhv_phase phase;
	struct bpfhv_gen *next;
	unsigned long since;	/* when the phase began */
	unsigned long wait;	/* before the next look */
	unsigned long retired;	/* bit q: nobody uses the old ring of queue q */
	bool tell;		/* the stack does not know the features of the set yet */
};

struct bpfhv_stats {
	u64 packets;
	u64 bytes;
	u64 dropped;
	u64 errors;		/* a program failed, or the host broke the ABI */
	u64 kicks;
	u64 interrupts;
	u64 stops;		/* TX: queue stopped for lack of slots */
	u64 no_memory;		/* RX: refills that ran out of memory */
	u64 softened;		/* TX: finished in software, as the set could not send them */
	u64 linearized;		/* TX: copied, as they had more pieces than the ring takes */
	u64 held;		/* TX: kept until the ring had room */
	u64 pauses;		/* RX: polls that waited, as a task was ready to run */
	u64 xdp_pass;		/* RX: by what the XDP program decided */
	u64 xdp_drop;
	u64 xdp_tx;
	u64 xdp_redirect;
	u64 xdp_errors;		/* not run, or not done as decided; TX: not sent */
	u64 xdp_xmit;		/* TX: frames from XDP programs, of any NIC */
	u64 timeouts;		/* TX: times that the queue was found stopped for 5 s */
};

#define BPFHV_N_STATS	(sizeof(struct bpfhv_stats) / sizeof(u64))

/* RX: the CPU time that polls took lately, in ns, and when that was counted last. */
struct bpfhv_share {
	u64 used;
	u64 since;
};

/* What NAPI does with the next ring of a receive queue. */
enum bpfhv_next {
	BPFHV_NEXT_FILL,	/* publishes buffers */
	BPFHV_NEXT_FILLED,	/* nothing: it is full */
	BPFHV_NEXT_USE,		/* makes it the current one, as the host has */
};

struct bpfhv_queue {
	struct bpfhv_priv *bp;
	struct bpfhv_ring *cur;
	struct bpfhv_ring *old;	/* NULL, or the ring before, which is not empty yet */
	struct bpfhv_ring *next;	/* RX: NULL, or the ring that replaces the current one */
	enum bpfhv_next next_state;	/* RX */
	struct napi_struct napi;
	void __iomem *doorbell;
	unsigned int index;	/* among all queues: receive queues first */
	int irq;		/* 0: it has no vector */
	bool tx;
	bool broken;		/* stopped until the NIC is next up */
	bool kick_pending;	/* TX: kick requested, sent at the end of the burst */
	struct sk_buff_head held;	/* TX: packets to send before others, under the tx lock */
	unsigned int idle_polls;
	u32 watched;		/* TX: outstanding when last looked at */
	unsigned int idle_looks;	/* TX: since the last completion */
	unsigned int patience;	/* TX: how many of them before a stopped queue is reset */
	struct hrtimer tx_timer;
	struct hrtimer rx_timer;	/* RX: polls without an interrupt: no vector, no memory */
	bool reply_expected;	/* RX: the next poll looks for one */
	u8 reply_polls;	/* RX: that may still be in vain */
	struct bpfhv_share share;
	struct page_pool *pool;
	struct xdp_rxq_info xdp_rxq;
	u8 xdp_pending;		/* RX: what the end of the poll is to flush: BPFHV_XDP_ */
	struct bpfhv_stats stats;
	struct u64_stats_sync sync;
	char irq_name[48];
};

int bpfhv_run_unverified(struct bpfhv_ring *r, enum bpfhv_prog_id id);

#define bpfhv_count(q, field, n) do {			\
	u64_stats_update_begin(&(q)->sync);		\
	(q)->stats.field += (n);			\
	u64_stats_update_end(&(q)->sync);		\
} while (0)

/*
 * Runs a program of a ring. The call is a compiler barrier for the context. The datapath runs with
 * bottom halves disabled, so the program does not migrate between CPUs, as programs require.
 */
static inline int bpfhv_run(struct bpfhv_ring *r, enum bpfhv_prog_id id)
{
	if (unlikely(r->run_ctx))
		return bpfhv_run_unverified(r, id);
	return (int)bpf_prog_run(r->prog[id], NULL);
}

static inline int bpfhv_run_intr(struct bpfhv_ring *r, enum bpfhv_prog_id id, u32 min)
{
	WRITE_ONCE(r->ctx->min_completed_bufs, cpu_to_le32(min));
	return bpfhv_run(r, id);
}

/* Returns the number of outstanding buffers of a ring. */
static inline u32 bpfhv_outstanding(const struct bpfhv_ring *r)
{
	return r->n_bufs - r->n_free;
}

#endif /* BPFHV_RING_H */
