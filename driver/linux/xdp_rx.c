// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Receive for XDP: runs the program on a packet, and does what it decided. A dropped packet leaves
 * its buffer in its slot, which is published again as it is.
 */
#include <linux/bpf.h>
#include <linux/bpf_trace.h>
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>
#include <linux/virtio_net.h>
#include <net/checksum.h>

#include "bpfhv_xdp.h"

#if BPFHV_HAS_XDP

/* A packet in receive buffers. */
struct bpfhv_rx_bufs {
	struct bpfhv_slot *slot[MAX_SKB_FRAGS + 1];
	u32 len[MAX_SKB_FRAGS + 1];
	u32 n;
	u32 bytes;
};

/*
 * Takes the buffers that rxc left in the context. Their pages stay in their slots, which nothing
 * uses before the next refill. Returns 1; 0 if the packet is to be dropped; or a negative error if
 * the host broke the ABI.
 */
static int bpfhv_xdp_gather(struct bpfhv_queue *q, struct bpfhv_ring *r, struct bpfhv_rx_bufs *in)
{
	u32 num = le32_to_cpu(READ_ONCE(r->ctx->num_bufs));
	bool fits = true;
	u32 i, id;

	in->n = 0;
	in->bytes = 0;
	if (unlikely(!num || num > BPFHV_MAX_BUFS))
		return -EPROTO;
	for (i = 0; i < num; i++) {
		u64 cookie = le64_to_cpu(READ_ONCE(r->ctx->bufs[i].cookie));
		u32 len = le32_to_cpu(READ_ONCE(r->ctx->bufs[i].len));

		if (unlikely(!bpfhv_slot_free(r, cookie, &id) || len > r->slots[id].len))
			return -EPROTO;
		/* A length of 0: the host skipped this buffer. */
		if (unlikely(!len))
			continue;
		in->bytes += len;
		if (unlikely(in->n == ARRAY_SIZE(in->slot) || (len < ETH_HLEN && !in->n))) {
			fits = false;
			continue;
		}
		dma_sync_single_for_cpu(&q->bp->pdev->dev, r->slots[id].dma, len, DMA_FROM_DEVICE);
		in->slot[in->n] = &r->slots[id];
		in->len[in->n++] = len;
	}
	return fits && in->n;
}

/* Moves a packet to a buffer with the headroom that programs rely on. */
static int bpfhv_xdp_move(struct bpfhv_queue *q, struct bpfhv_slot *slot, u32 len)
{
	struct bpfhv_slot before = *slot;
	int err;

	err = bpfhv_rx_alloc(q, slot, true);
	if (err) {
		*slot = before;
		return err;
	}
	memcpy(bpfhv_rx_data(q, slot), bpfhv_rx_data(q, &before), len);
	page_pool_put_full_page(q->pool, before.page, true);
	return 0;
}

/* The buffers after the first become fragments. From here on all belong to the packet. */
static void bpfhv_xdp_add_frags(struct bpfhv_queue *q, struct bpfhv_rx_bufs *in,
				struct xdp_buff *xdp)
{
	struct skb_shared_info *shared = xdp_get_shared_info_from_buff(xdp);
	u32 i;

	shared->nr_frags = 0;
	shared->xdp_frags_size = 0;
	for (i = 1; i < in->n; i++) {
		struct bpfhv_slot *slot = in->slot[i];

		skb_frag_fill_page_desc(&shared->frags[shared->nr_frags++], slot->page,
					bpfhv_rx_data(q, slot) - page_address(slot->page),
					in->len[i]);
		shared->xdp_frags_size += in->len[i];
		slot->page = NULL;
	}
	in->slot[0]->page = NULL;
	xdp_buff_set_frags_flag(xdp);
}

/* Prepares the packet for the program. Returns an error if it cannot see it. */
static int bpfhv_xdp_prepare(struct bpfhv_queue *q, const struct bpf_prog *prog,
			     struct bpfhv_rx_bufs *in, struct xdp_buff *xdp)
{
	const struct bpfhv_rx_layout *layout = &q->bp->rx_layout[true];
	struct bpfhv_slot *slot = in->slot[0];
	int err;

	if (unlikely(in->n > 1 && !prog->aux->xdp_has_frags))
		return -EMSGSIZE;
	if (unlikely(!slot->roomy && q->bp->rx_layout[false].size != layout->size)) {
		err = bpfhv_xdp_move(q, slot, in->len[0]);
		if (err)
			return err;
	}
	xdp_init_buff(xdp, layout->size, &q->xdp_rxq);
	xdp_prepare_buff(xdp, bpfhv_rx_data(q, slot) - layout->headroom, layout->headroom,
			 in->len[0], true);
	if (in->n > 1)
		bpfhv_xdp_add_frags(q, in, xdp);
	return 0;
}

/* Returns the checksum from an offset to the end of the packet. */
static __wsum bpfhv_xdp_sum(struct xdp_buff *xdp, u32 start)
{
	u32 i, len = xdp->data_end - xdp->data - start;
	__wsum sum = csum_partial(xdp->data + start, len, 0);
	struct skb_shared_info *shared;

	if (likely(!xdp_buff_has_frags(xdp)))
		return sum;
	shared = xdp_get_shared_info_from_buff(xdp);
	for (i = 0; i < shared->nr_frags; i++) {
		const skb_frag_t *frag = &shared->frags[i];
		__wsum part = csum_partial(skb_frag_address(frag), skb_frag_size(frag), 0);

		sum = csum_block_add(sum, part, len);
		len += skb_frag_size(frag);
	}
	return sum;
}

/*
 * Programs see finished checksums, as what they send back or redirect has no metadata. Returns an
 * error if the metadata is invalid.
 */
static int bpfhv_xdp_checksum(struct bpfhv_ring *r, struct xdp_buff *xdp, bool *valid)
{
	struct virtio_net_hdr hdr = {};
	u32 start, at;
	__sum16 sum;

	*valid = false;
	if (!(r->selected & BPFHV_F_RX_CSUM))
		return 0;
	memcpy(&hdr, &r->ctx->metadata, sizeof(r->ctx->metadata));
	/* Merging is off while a program is attached. */
	if (unlikely(hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE))
		return -EPROTO;
	*valid = hdr.flags & (VIRTIO_NET_HDR_F_DATA_VALID | VIRTIO_NET_HDR_F_NEEDS_CSUM);
	if (!(hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	start = __virtio16_to_cpu(true, hdr.csum_start);
	at = start + __virtio16_to_cpu(true, hdr.csum_offset);
	if (unlikely(at + sizeof(sum) > xdp->data_end - xdp->data))
		return -EPROTO;
	sum = csum_fold(bpfhv_xdp_sum(xdp, start));
	if (!sum)
		sum = CSUM_MANGLED_0;
	memcpy(xdp->data + at, &sum, sizeof(sum));
	return 0;
}

/* Makes an skb of a packet that the program passed. The packet's pages are its own then. */
static struct sk_buff *bpfhv_xdp_build(struct bpfhv_queue *q, struct bpfhv_rx_bufs *in,
				       struct xdp_buff *xdp)
{
	u32 len = xdp->data_end - xdp->data, meta = xdp->data - xdp->data_meta;
	u32 i, frags = 0, frags_size = 0;
	struct skb_shared_info *shared;
	struct sk_buff *skb;

	if (in->n == 1 && !meta && len <= BPFHV_COPYBREAK)
		return bpfhv_rx_copy(q, xdp->data, len);
	shared = xdp_get_shared_info_from_buff(xdp);
	if (xdp_buff_has_frags(xdp)) {
		frags = shared->nr_frags;
		frags_size = shared->xdp_frags_size;
	}
	skb = napi_build_skb(xdp->data_hard_start, xdp->frame_sz);
	if (!skb)
		return NULL;
	skb_reserve(skb, xdp->data - xdp->data_hard_start);
	skb_put(skb, len);
	if (meta)
		skb_metadata_set(skb, meta);
	/* build_skb() has cleared all but the fragments themselves. */
	shared->nr_frags = frags;
	for (i = 0; i < frags; i++)
		skb->pfmemalloc |= page_is_pfmemalloc(skb_frag_page(&shared->frags[i]));
	skb->len += frags_size;
	skb->data_len += frags_size;
	skb->truesize += frags * xdp->frame_sz;
	bpfhv_mark_for_recycle(skb);
	in->slot[0]->page = NULL;
	return skb;
}

/* Frees a packet that nothing took. A single buffer stays in its slot. */
static void bpfhv_xdp_discard(const struct bpfhv_rx_bufs *in, struct xdp_buff *xdp)
{
	if (in->n > 1)
		xdp_return_buff(xdp);
}

static bool bpfhv_xdp_send_back(struct bpfhv_queue *q, struct xdp_buff *xdp)
{
	struct xdp_frame *frame = xdp_convert_buff_to_frame(xdp);

	if (unlikely(!frame || bpfhv_xdp_send(bpfhv_txq(q->bp, q->index), frame)))
		return false;
	q->xdp_pending |= BPFHV_XDP_TX;
	return true;
}

/* Does what the program decided, other than to pass the packet. Returns false if it fails. */
static bool bpfhv_xdp_act(struct bpfhv_queue *q, struct bpf_prog *prog, struct xdp_buff *xdp,
			  u32 act)
{
	struct net_device *dev = q->bp->netdev;

	switch (act) {
	case XDP_TX:
		if (!bpfhv_xdp_send_back(q, xdp))
			break;
		bpfhv_count(q, xdp_tx, 1);
		return true;
	case XDP_REDIRECT:
		if (xdp_do_redirect(dev, xdp, prog))
			break;
		q->xdp_pending |= BPFHV_XDP_REDIRECT;
		bpfhv_count(q, xdp_redirect, 1);
		return true;
	case XDP_ABORTED:
		break;
	default:
		bpf_warn_invalid_xdp_action(dev, prog, act);
	}
	trace_xdp_exception(dev, prog, act);
	return false;
}

/*
 * Runs the program on the packet that rxc left in the context. Returns as bpfhv_rx_packet(), or
 * BPFHV_RX_TAKEN.
 */
int bpfhv_xdp_packet(struct bpfhv_queue *q, struct bpfhv_ring *r, struct bpf_prog *prog,
		     struct sk_buff **out)
{
	struct bpfhv_rx_bufs in;
	struct xdp_buff xdp;
	void *data;
	bool valid;
	int ret;
	u32 act;

	*out = NULL;
	ret = bpfhv_xdp_gather(q, r, &in);
	if (unlikely(ret < 0))
		return ret;
	bpfhv_count(q, packets, 1);
	bpfhv_count(q, bytes, in.bytes);
	if (unlikely(!ret || bpfhv_xdp_prepare(q, prog, &in, &xdp)))
		goto failed;
	if (unlikely(bpfhv_xdp_checksum(r, &xdp, &valid)))
		goto discard;
	data = xdp.data;
	act = bpf_prog_run_xdp(prog, &xdp);
	if (act == XDP_PASS) {
		*out = bpfhv_xdp_build(q, &in, &xdp);
		if (unlikely(!*out))
			goto discard;
		/* Of headers that the program added or removed nothing is known. */
		if (xdp.data == data) {
			if (valid)
				(*out)->ip_summed = CHECKSUM_UNNECESSARY;
			bpfhv_rx_hash(q->bp, r, *out);
		}
		bpfhv_count(q, xdp_pass, 1);
		return 1;
	}
	if (act == XDP_DROP) {
		bpfhv_count(q, xdp_drop, 1);
		bpfhv_xdp_discard(&in, &xdp);
		return BPFHV_RX_TAKEN;
	}
	if (likely(bpfhv_xdp_act(q, prog, &xdp, act))) {
		in.slot[0]->page = NULL;
		return BPFHV_RX_TAKEN;
	}
discard:
	bpfhv_xdp_discard(&in, &xdp);
failed:
	bpfhv_count(q, xdp_errors, 1);
	return 0;
}

/* Ends a poll: sends what its packets caused. */
void bpfhv_xdp_flush(struct bpfhv_queue *q)
{
	if (likely(!q->xdp_pending))
		return;
	if (q->xdp_pending & BPFHV_XDP_REDIRECT)
		xdp_do_flush();
	if (q->xdp_pending & BPFHV_XDP_TX)
		bpfhv_xdp_sent(bpfhv_txq(q->bp, q->index));
	q->xdp_pending = 0;
}

#endif /* BPFHV_HAS_XDP */
