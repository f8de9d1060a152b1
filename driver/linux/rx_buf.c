// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Receive buffers. They belong to a page pool, which maps their pages once and recycles them.
 *
 *     buffer:  | headroom | frame ...            | skb_shared_info |
 *
 * Their size follows from the MTU: part of a page if a frame fits there, else 4096 bytes if the
 * device can spread a packet over several buffers, else as much as a frame needs.
 */
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>

#include "bpfhv_xdp.h"

#define BPFHV_RX_TAILROOM	SKB_DATA_ALIGN(sizeof(struct skb_shared_info))
#define BPFHV_RX_SMALL		2048
#define BPFHV_RX_SMALL_HEADROOM	max(NET_SKB_PAD, 192)
#define BPFHV_RX_NORMAL		4096
#define BPFHV_RX_HEADROOM	max(NET_SKB_PAD, 256)
/* Memory for larger buffers is often too fragmented. */
#define BPFHV_RX_LARGEST	32768
/* An Ethernet header and two VLAN tags. */
#define BPFHV_RX_HEADERS	(ETH_HLEN + 2 * VLAN_HLEN)

static void bpfhv_rx_use_size(struct bpfhv_rx_layout *layout, u32 size)
{
	layout->size = size;
	layout->headroom = size == BPFHV_RX_SMALL ? BPFHV_RX_SMALL_HEADROOM : BPFHV_RX_HEADROOM;
	layout->len = size - layout->headroom - BPFHV_RX_TAILROOM;
}

/* Devices that offer to merge packets spread one over several buffers, whether used or not. */
static bool bpfhv_rx_spreads(const struct bpfhv_priv *bp)
{
	return bp->offered & BPFHV_F_LRO;
}

/*
 * Returns the layout for an MTU with the features selected now. Small buffers have less headroom
 * than XDP programs may rely on.
 */
static struct bpfhv_rx_layout bpfhv_rx_plan(const struct bpfhv_priv *bp, unsigned int mtu,
					    bool roomy)
{
	u32 frame = mtu + BPFHV_RX_HEADERS;
	struct bpfhv_rx_layout layout;

	bpfhv_rx_use_size(&layout, BPFHV_RX_SMALL);
	if (BPFHV_HAS_POOL_FRAGS && frame <= layout.len && !(bp->selected & BPFHV_F_LRO) && !roomy)
		return layout;
	/* Without fragments of pages the rest of a large page is not used by others. */
	bpfhv_rx_use_size(&layout, BPFHV_HAS_POOL_FRAGS ? BPFHV_RX_NORMAL : PAGE_SIZE);
	while (!bpfhv_rx_spreads(bp) && frame > layout.len && layout.size < BPFHV_RX_LARGEST)
		bpfhv_rx_use_size(&layout, 2 * layout.size);
	return layout;
}

/* Returns the largest MTU that the buffers allow. */
unsigned int bpfhv_rx_max_mtu(const struct bpfhv_priv *bp)
{
	struct bpfhv_rx_layout layout;

	if (bpfhv_rx_spreads(bp))
		return ETH_MAX_MTU;
	bpfhv_rx_use_size(&layout, BPFHV_RX_LARGEST);
	return layout.len - BPFHV_RX_HEADERS;
}

/* Returns true if another MTU needs other buffers than now. */
bool bpfhv_rx_relayout(const struct bpfhv_priv *bp, unsigned int mtu)
{
	return bpfhv_rx_plan(bp, mtu, false).size != bp->rx_layout[0].size;
}

/* Returns true if one buffer of the layout for XDP has room for each frame of an MTU. */
bool bpfhv_rx_fits_one(const struct bpfhv_priv *bp, unsigned int mtu)
{
	return mtu + BPFHV_RX_HEADERS <= bpfhv_rx_plan(bp, mtu, true).len;
}

/* Returns true if the buffers that are in use do for another set, too. */
bool bpfhv_rx_fits(const struct bpfhv_priv *bp, const struct bpfhv_terms *terms)
{
	bool one = bp->netdev->mtu + BPFHV_RX_HEADERS <= bp->rx_layout[false].len;

	/* An XDP program sees no merged packets, and many no packet of several buffers. */
	if (bpfhv_xdp_prog(bp))
		return one && !(terms->selected & BPFHV_F_LRO);
	return one || (terms->offered & BPFHV_F_LRO);
}

int bpfhv_rx_setup(struct bpfhv_queue *q)
{
	struct bpfhv_priv *bp = q->bp;
	const struct bpfhv_rx_layout layout = bpfhv_rx_plan(bp, bp->netdev->mtu, false);
	bool shared = layout.size < PAGE_SIZE;
	u32 order = get_order(layout.size);
	struct page_pool_params params = {
		.flags = PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV | (shared ? BPFHV_POOL_FRAGS : 0),
		.order = order,
		.pool_size = min_t(u32, q->cur->n_bufs, 1024),
		.nid = NUMA_NO_NODE,
		.dev = &bp->pdev->dev,
		BPFHV_POOL_NAPI(&q->napi)
		.dma_dir = DMA_FROM_DEVICE,
		.offset = shared ? 0 : layout.headroom,
		.max_len = shared ? PAGE_SIZE : layout.len,
	};
	int err;

	bp->rx_layout[false] = layout;
	/* Of the same pool: differs from small buffers only, of which a page has several. */
	bp->rx_layout[true] = bpfhv_rx_plan(bp, bp->netdev->mtu, true);
	q->pool = page_pool_create(&params);
	if (IS_ERR(q->pool)) {
		err = PTR_ERR(q->pool);
		q->pool = NULL;
		return err;
	}
	err = bpfhv_xdp_register(q);
	if (err)
		bpfhv_rx_teardown(q);
	return err;
}

void bpfhv_rx_teardown(struct bpfhv_queue *q)
{
	bpfhv_xdp_unregister(q);
	if (q->pool)
		page_pool_destroy(q->pool);
	q->pool = NULL;
}

/* Allocates a buffer for a slot. Up to 6.6 a pool has fragments only, or whole pages only. */
int bpfhv_rx_alloc(struct bpfhv_queue *q, struct bpfhv_slot *slot, bool roomy)
{
	const struct bpfhv_rx_layout *layout = &q->bp->rx_layout[roomy];

	slot->offset = 0;
	if (q->bp->rx_layout[false].size < PAGE_SIZE)
		slot->page = bpfhv_pool_alloc_frag(q->pool, &slot->offset, layout->size);
	else
		slot->page = page_pool_dev_alloc_pages(q->pool);
	if (!slot->page)
		return -ENOMEM;
	slot->roomy = roomy;
	slot->dma = page_pool_get_dma_addr(slot->page) + slot->offset + layout->headroom;
	slot->len = layout->len;
	return 0;
}

/* Allocates a buffer for the slot on top of the stack, if it has none. */
static struct bpfhv_slot *bpfhv_rx_prepare(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 *id)
{
	struct bpfhv_slot *slot;

	*id = r->free_ids[r->n_free - 1];
	slot = &r->slots[*id];
	if (slot->page) {
		dma_sync_single_for_device(&q->bp->pdev->dev, slot->dma, slot->len,
					   DMA_FROM_DEVICE);
		return slot;
	}
	return bpfhv_rx_alloc(q, slot, bpfhv_xdp_prog(q->bp)) ? NULL : slot;
}

static u32 bpfhv_rx_fill(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	struct bpfhv_context *ctx = r->ctx;
	u32 n, id, want = min_t(u32, r->n_free, BPFHV_MAX_BUFS);

	for (n = 0; n < want; n++) {
		struct bpfhv_slot *slot = bpfhv_rx_prepare(q, r, &id);

		if (!slot)
			break;
		bpfhv_slot_alloc(r);
		ctx->bufs[n].cookie = cpu_to_le64(id);
		ctx->bufs[n].paddr = cpu_to_le64(slot->dma);
		ctx->bufs[n].vaddr = 0;
		ctx->bufs[n].len = cpu_to_le32(slot->len);
		ctx->bufs[n].reserved = 0;
	}
	return n;
}

/* Frees the n slots that were allocated last. */
static void bpfhv_rx_undo(struct bpfhv_ring *r, u32 n)
{
	while (n--)
		r->slots[r->free_ids[r->n_free++]].busy = false;
}

/*
 * Publishes up to BPFHV_MAX_BUFS buffers. Returns their number, 0 if memory ran out, or a negative
 * error if the program failed.
 */
int bpfhv_rx_publish(struct bpfhv_queue *q, struct bpfhv_ring *r, bool *kick)
{
	u32 n = bpfhv_rx_fill(q, r);

	if (!n)
		return 0;
	r->ctx->num_bufs = cpu_to_le32(n);
	r->ctx->oflags = 0;
	if (unlikely(bpfhv_run(r, BPFHV_PROG_RXP) < 0)) {
		bpfhv_rx_undo(r, n);
		bpfhv_request_reset(q, "program rxp failed");
		return -EPROTO;
	}
	if (le32_to_cpu(READ_ONCE(r->ctx->oflags)) & BPFHV_OFLAG_KICK_NEEDED)
		*kick = true;
	return n;
}

/* Publishes buffers for all free slots. Returns false if memory ran out. */
bool bpfhv_rx_refill(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	bool kick = false;

	while (r->n_free && !q->broken)
		if (bpfhv_rx_publish(q, r, &kick) <= 0)
			break;
	if (kick)
		bpfhv_kick(q);
	if (r->n_free && !q->broken) {
		bpfhv_count(q, no_memory, 1);
		return false;
	}
	return true;
}
