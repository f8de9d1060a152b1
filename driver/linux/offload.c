// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Offloads: what the set's features let the stack ask for, the metadata that go with a packet, and
 * software for packets that the stack prepared for a set which is no more.
 */
#include <linux/etherdevice.h>
#include <linux/virtio_net.h>

#include "bpfhv.h"

#define BPFHV_F_LRO	(BPFHV_F_TCP_V4_LRO | BPFHV_F_TCP_V6_LRO | BPFHV_F_UDP_LRO)

/* Features that this driver makes use of. */
u32 bpfhv_wanted_features(const struct bpfhv_priv *bp)
{
	u32 wanted = BPFHV_F_SG | BPFHV_F_TX_CSUM | BPFHV_F_TSO_V4 | BPFHV_F_TSO_V6 |
		     BPFHV_F_UFO | BPFHV_F_RX_CSUM | BPFHV_F_LRO;

	return wanted & ~bp->switched_off;
}

/* What the stack may do with features of the device. Large packets need checksums, both ways. */
netdev_features_t bpfhv_netdev_features(u32 features)
{
	netdev_features_t to = NETIF_F_HIGHDMA;

	if (features & BPFHV_F_SG)
		to |= NETIF_F_SG;
	if (features & BPFHV_F_TX_CSUM) {
		to |= NETIF_F_HW_CSUM;
		if (features & BPFHV_F_TSO_V4)
			to |= NETIF_F_TSO;
		if (features & BPFHV_F_TSO_V6)
			to |= NETIF_F_TSO6;
		if ((features & BPFHV_F_UFO) && BPFHV_HAVE_USO)
			to |= NETIF_F_GSO_UDP_L4;
	}
	if (features & BPFHV_F_RX_CSUM) {
		to |= NETIF_F_RXCSUM;
		if (features & BPFHV_F_LRO)
			to |= NETIF_F_GRO_HW;
	}
	return to;
}

/* What depends on the set. All other bits are the core's. */
static netdev_features_t bpfhv_managed(void)
{
	return bpfhv_netdev_features(~0U) & ~NETIF_F_HIGHDMA;
}

/* What can be on with the current set: also what the user switched off. */
static netdev_features_t bpfhv_able(const struct bpfhv_priv *bp)
{
	u32 off = bp->offered & bp->switched_off;

	return bpfhv_netdev_features(bp->selected | off) & bpfhv_managed();
}

/* What the user wants outlives sets; returns the part of it that the current set supports. */
netdev_features_t bpfhv_fix_features(struct net_device *dev, netdev_features_t features)
{
	return features & (bpfhv_able(netdev_priv(dev)) | ~bpfhv_managed());
}

static void bpfhv_show_features(struct bpfhv_priv *bp)
{
	netdev_features_t managed = bpfhv_managed(), sent;
	struct net_device *dev = bp->netdev;

	sent = managed & ~(NETIF_F_RXCSUM | NETIF_F_GRO_HW);
	dev->hw_features = (dev->hw_features & ~managed) | bpfhv_able(bp);
	dev->vlan_features = (dev->vlan_features & ~managed) | (bp->features & sent);
}

/* Under RTNL, after features were negotiated. */
void bpfhv_set_features_from_selected(struct bpfhv_priv *bp)
{
	struct net_device *dev = bp->netdev;

	bpfhv_show_features(bp);
	if (dev->reg_state == NETREG_REGISTERED)
		netdev_update_features(dev);
	else
		dev->features = bp->features;
}

/* Under RTNL, once registered: what only later sets can do is wanted, too. */
void bpfhv_want_later_features(struct bpfhv_priv *bp)
{
	struct net_device *dev = bp->netdev;

	/* Of the others the user may have switched some off by now. */
	dev->wanted_features |= bpfhv_managed() & ~dev->hw_features;
}

/*
 * Switched by ethtool. What the guest sends is the stack's affair. What it receives is the host's:
 * that is negotiated anew, with programs made for it.
 */
int bpfhv_set_features(struct net_device *dev, netdev_features_t features)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	u32 before = bp->switched_off, off = 0;
	netdev_features_t able;
	int err;

	if (!(features & NETIF_F_RXCSUM))
		off = BPFHV_F_RX_CSUM | BPFHV_F_LRO;
	else if (!(features & NETIF_F_GRO_HW))
		off = BPFHV_F_LRO;
	/* Of what this set does not offer, the answer of before stands. */
	off = (off & bp->offered) | (before & ~bp->offered);
	if (off == before)
		return 0;
	bp->switched_off = off;
	err = bpfhv_renew(bp);
	if (err) {
		bp->switched_off = before;
		return err;
	}
	/* The set that came of it may have less than what was asked for. */
	bpfhv_show_features(bp);
	able = bpfhv_fix_features(dev, features);
	if (able == features)
		return 0;
	dev->features = able;
	return 1;
}

int bpfhv_tx_metadata(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct virtio_net_hdr hdr = {};

	if ((q->bp->selected & BPFHV_F_TX_CSUM) &&
	    virtio_net_hdr_from_skb(skb, &hdr, true, false, 0))
		return -EINVAL;
	memcpy(&r->ctx->metadata, &hdr, sizeof(r->ctx->metadata));
	return 0;
}

/* Can the current set send the packet as it is? Mostly the stack saw to that. */
bool bpfhv_tx_suits(const struct bpfhv_priv *bp, struct sk_buff *skb)
{
	netdev_features_t features = bp->features;

	return !netif_needs_gso(skb, features) &&
	       (skb->ip_summed != CHECKSUM_PARTIAL || (features & NETIF_F_HW_CSUM)) &&
	       (!skb_is_nonlinear(skb) || (features & NETIF_F_SG));
}

/*
 * For a packet that was validated before features were lost. @return a list of packets that the
 * set can send, or NULL where the packet is gone for want of memory.
 */
struct sk_buff *bpfhv_tx_soften(const struct bpfhv_priv *bp, struct sk_buff *skb)
{
	netdev_features_t features = bp->features & ~NETIF_F_GSO_MASK;
	struct sk_buff *segments, *one;

	if (netif_needs_gso(skb, bp->features)) {
		segments = skb_gso_segment(skb, features);
		if (IS_ERR_OR_NULL(segments))
			goto drop;
		consume_skb(skb);
		skb = segments;
	}
	for (one = skb; one; one = one->next) {
		if (one->ip_summed == CHECKSUM_PARTIAL && !(features & NETIF_F_HW_CSUM) &&
		    skb_checksum_help(one))
			goto drop;
		if (skb_is_nonlinear(one) && !(features & NETIF_F_SG) && __skb_linearize(one))
			goto drop;
	}
	return skb;
drop:
	kfree_skb_list(skb);
	return NULL;
}

/* The feature that a large packet of the host's stands for, or 0. */
static u32 bpfhv_lro_feature(u8 gso_type)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return BPFHV_F_TCP_V4_LRO;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return BPFHV_F_TCP_V6_LRO;
	case VIRTIO_NET_HDR_GSO_UDP:
#if BPFHV_HAVE_USO
	case VIRTIO_NET_HDR_GSO_UDP_L4:
#endif
		return BPFHV_F_UDP_LRO;
	}
	return 0;
}

/* What the host says of checksums and segments, as far as that was negotiated. */
int bpfhv_rx_metadata(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct virtio_net_hdr hdr = {};

	if (!(q->bp->selected & BPFHV_F_RX_CSUM))
		return 0;
	memcpy(&hdr, &r->ctx->metadata, sizeof(r->ctx->metadata));
	if (hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE &&
	    !(q->bp->selected & bpfhv_lro_feature(hdr.gso_type)))
		return -EPROTO;
	if (hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	return virtio_net_hdr_to_skb(skb, &hdr, true);
}
