// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Flow hashes: which receive queue a flow arrives on, and the hash that comes with a packet. The
 * host computes them. Until the user sets a table, the host's port chooses the queue: mostly the
 * one that the flow was last sent on, which no table can do better.
 *
 * Settings are made under RTNL.
 */
#include <linux/dma-mapping.h>

#include "bpfhv.h"

#define BPFHV_HASH_ALL	(BPFHV_HASH_IPV4 | BPFHV_HASH_TCP_V4 | BPFHV_HASH_UDP_V4 |	\
			 BPFHV_HASH_IPV6 | BPFHV_HASH_TCP_V6 | BPFHV_HASH_UDP_V6)
#define BPFHV_RXH_IP	(RXH_IP_SRC | RXH_IP_DST)
#define BPFHV_RXH_PORTS	(RXH_L4_B_0_1 | RXH_L4_B_2_3)

static bool bpfhv_rss_able(const struct bpfhv_priv *bp)
{
	return (bp->abilities & BPFHV_ABILITY_RSS) && bp->n_pairs > 1;
}

static bool bpfhv_rss_steers(const struct bpfhv_priv *bp)
{
	return bp->hash.rss.flags & cpu_to_le16(BPFHV_RSS_STEER);
}

/*
 * Tells the host the settings. A device that was reset has forgotten them. Returns an error if the
 * host refuses them.
 */
int bpfhv_rss_apply(struct bpfhv_priv *bp, netdev_features_t features)
{
	u32 result;

	if (!bpfhv_rss_able(bp))
		return 0;
	bp->hash.rss.flags &= cpu_to_le16(BPFHV_RSS_STEER);
	/* Without a table a hash would only cost the host time. */
	if (bpfhv_rss_steers(bp) && (features & NETIF_F_RXHASH))
		bp->hash.rss.flags |= cpu_to_le16(BPFHV_RSS_REPORT);
	memcpy(bp->hash.block, &bp->hash.rss, sizeof(bp->hash.rss));
	dma_wmb();
	bpfhv_write_address(bp, BPFHV_REG_RSS_LO, bp->hash.dma);
	result = bpfhv_read(bp, BPFHV_REG_RSS_STATE) >> 8 & 0xff;
	return bp->gone || result == BPFHV_RSS_OK ? 0 : -EINVAL;
}

/* The host's hash of a packet. The host may lie, as it may about the packet itself. */
void bpfhv_rx_hash(struct bpfhv_priv *bp, struct bpfhv_ring *r, struct sk_buff *skb)
{
	u8 flags = READ_ONCE(r->ctx->metadata.flags);
	u32 hash;

	if (!(flags & BPFHV_METADATA_HASH) || !(bp->netdev->features & NETIF_F_RXHASH))
		return;
	hash = le16_to_cpu(r->ctx->metadata.hdr_len) | le16_to_cpu(r->ctx->hash_high) << 16;
	skb_set_hash(skb, hash,
		     flags & BPFHV_METADATA_HASH_PORTS ? PKT_HASH_TYPE_L4 : PKT_HASH_TYPE_L3);
}

u32 bpfhv_get_rxfh_key_size(struct net_device *dev)
{
	return bpfhv_rss_able(netdev_priv(dev)) ? BPFHV_RSS_KEY_SIZE : 0;
}

u32 bpfhv_get_rxfh_indir_size(struct net_device *dev)
{
	return bpfhv_rss_able(netdev_priv(dev)) ? BPFHV_MAX_RSS_TABLE : 0;
}

static int bpfhv_rxfh_show(struct bpfhv_priv *bp, u32 *indir, u8 *key, u8 *hfunc)
{
	unsigned int i;

	if (!bpfhv_rss_able(bp))
		return -EOPNOTSUPP;
	for (i = 0; indir && i < BPFHV_MAX_RSS_TABLE; i++)
		indir[i] = bpfhv_rss_steers(bp) ? le16_to_cpu(bp->hash.rss.table[i]) :
			   ethtool_rxfh_indir_default(i, bp->n_pairs);
	if (key)
		memcpy(key, bp->hash.rss.key, BPFHV_RSS_KEY_SIZE);
	if (hfunc)
		*hfunc = ETH_RSS_HASH_TOP;
	return 0;
}

static int bpfhv_rxfh_change(struct bpfhv_priv *bp, const u32 *indir, const u8 *key, u8 hfunc,
			     struct netlink_ext_ack *extack)
{
	struct bpfhv_rss before = bp->hash.rss;
	unsigned int i;
	int err;

	if (!bpfhv_rss_able(bp)) {
		NL_SET_ERR_MSG(extack, "the host offers no flow hashes, or one queue only");
		return -EOPNOTSUPP;
	}
	if (hfunc != ETH_RSS_HASH_NO_CHANGE && hfunc != ETH_RSS_HASH_TOP) {
		NL_SET_ERR_MSG(extack, "the host hashes by Toeplitz only");
		return -EOPNOTSUPP;
	}
	for (i = 0; indir && i < BPFHV_MAX_RSS_TABLE; i++)
		bp->hash.rss.table[i] = cpu_to_le16(indir[i]);
	if (indir) {
		bp->hash.rss.flags |= cpu_to_le16(BPFHV_RSS_STEER);
		bp->hash.rss.entries = cpu_to_le16(BPFHV_MAX_RSS_TABLE);
	}
	if (key)
		memcpy(bp->hash.rss.key, key, BPFHV_RSS_KEY_SIZE);
	err = bpfhv_rss_apply(bp, bp->netdev->features);
	if (err) {
		NL_SET_ERR_MSG(extack, "the host refused the table or the key");
		bp->hash.rss = before;
	}
	return err;
}

#if BPFHV_HAS_RXFH_PARAM
int bpfhv_get_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh)
{
	return bpfhv_rxfh_show(netdev_priv(dev), rxfh->indir, rxfh->key, &rxfh->hfunc);
}

int bpfhv_set_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh,
		   struct netlink_ext_ack *extack)
{
	return bpfhv_rxfh_change(netdev_priv(dev), rxfh->indir, rxfh->key, rxfh->hfunc,
				 extack);
}
#else
int bpfhv_get_rxfh(struct net_device *dev, u32 *indir, u8 *key, u8 *hfunc)
{
	return bpfhv_rxfh_show(netdev_priv(dev), indir, key, hfunc);
}

int bpfhv_set_rxfh(struct net_device *dev, const u32 *indir, const u8 *key, const u8 hfunc)
{
	return bpfhv_rxfh_change(netdev_priv(dev), indir, key, hfunc, NULL);
}
#endif

/* The type of packets whose ports may be hashed, or 0. */
static u16 bpfhv_hash_type(u32 flow_type)
{
	switch (flow_type) {
	case TCP_V4_FLOW:
		return BPFHV_HASH_TCP_V4;
	case UDP_V4_FLOW:
		return BPFHV_HASH_UDP_V4;
	case TCP_V6_FLOW:
		return BPFHV_HASH_TCP_V6;
	case UDP_V6_FLOW:
		return BPFHV_HASH_UDP_V6;
	}
	return 0;
}

static u64 bpfhv_hash_fields(const struct bpfhv_priv *bp, u32 flow_type)
{
	if (le16_to_cpu(bp->hash.rss.types) & bpfhv_hash_type(flow_type))
		return BPFHV_RXH_IP | BPFHV_RXH_PORTS;
	return BPFHV_RXH_IP;
}

static int bpfhv_set_hash_fields(struct bpfhv_priv *bp, u32 flow_type, u64 fields)
{
	u16 type = bpfhv_hash_type(flow_type);
	__le16 before = bp->hash.rss.types;
	int err;

	if (!bpfhv_rss_able(bp))
		return -EOPNOTSUPP;
	if (fields == (BPFHV_RXH_IP | BPFHV_RXH_PORTS) && type)
		bp->hash.rss.types |= cpu_to_le16(type);
	else if (fields == BPFHV_RXH_IP)
		bp->hash.rss.types &= cpu_to_le16(~type);
	else
		return -EOPNOTSUPP;
	err = bpfhv_rss_apply(bp, bp->netdev->features);
	if (err)
		bp->hash.rss.types = before;
	return err;
}

#if BPFHV_HAS_RXFH_FIELDS
int bpfhv_get_rxfh_fields(struct net_device *dev, struct ethtool_rxfh_fields *fields)
{
	if (!bpfhv_rss_able(netdev_priv(dev)))
		return -EOPNOTSUPP;
	fields->data = bpfhv_hash_fields(netdev_priv(dev), fields->flow_type);
	return 0;
}

int bpfhv_set_rxfh_fields(struct net_device *dev, const struct ethtool_rxfh_fields *fields,
			  struct netlink_ext_ack *extack)
{
	return bpfhv_set_hash_fields(netdev_priv(dev), fields->flow_type, fields->data);
}
#endif

#if BPFHV_HAS_RX_RING_COUNT
u32 bpfhv_get_rx_ring_count(struct net_device *dev)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	return bp->n_pairs;
}
#endif

int bpfhv_get_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info, u32 *rule_locs)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	switch (info->cmd) {
	case ETHTOOL_GRXRINGS:
		info->data = bp->n_pairs;
		return 0;
	case ETHTOOL_GRXFH:
		if (!bpfhv_rss_able(bp))
			return -EOPNOTSUPP;
		info->data = bpfhv_hash_fields(bp, info->flow_type);
		return 0;
	}
	return -EOPNOTSUPP;
}

int bpfhv_set_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info)
{
	if (info->cmd != ETHTOOL_SRXFH)
		return -EOPNOTSUPP;
	return bpfhv_set_hash_fields(netdev_priv(dev), info->flow_type, info->data);
}

/* Called before registration, when the abilities are known. */
int bpfhv_rss_init(struct bpfhv_priv *bp)
{
	bp->hash.block = dmam_alloc_coherent(&bp->pdev->dev, sizeof(*bp->hash.block), &bp->hash.dma,
					    GFP_KERNEL);
	if (!bp->hash.block)
		return -ENOMEM;
	bp->hash.rss.types = cpu_to_le16(BPFHV_HASH_ALL);
	netdev_rss_key_fill(bp->hash.rss.key, BPFHV_RSS_KEY_SIZE);
	if (bpfhv_rss_able(bp)) {
		bp->netdev->hw_features |= NETIF_F_RXHASH;
		bp->netdev->features |= NETIF_F_RXHASH;
	}
	return 0;
}
