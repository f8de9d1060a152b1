// SPDX-License-Identifier: GPL-2.0 OR MIT
/* ethtool: statistics, rings, channels, registers, link speed. */
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>

#include "bpfhv.h"

/* In the order of struct bpfhv_stats */
static const char * const bpfhv_stat_names[] = {
	"packets", "bytes", "dropped", "errors", "kicks", "interrupts", "stops", "no_memory",
	"softened", "linearized", "held", "pauses", "xdp_pass", "xdp_drop", "xdp_tx",
	"xdp_redirect", "xdp_errors", "xdp_xmit", "timeouts",
};
static_assert(ARRAY_SIZE(bpfhv_stat_names) == BPFHV_N_STATS);

static const char * const bpfhv_global_names[] = {
	"verified", "generation", "resets", "upgrades", "upgrades_delayed",
	"losses", "recoveries", "recovery_failures",
};

static void bpfhv_get_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	strscpy(info->driver, BPFHV_NAME, sizeof(info->driver));
	strscpy(info->bus_info, pci_name(bp->pdev), sizeof(info->bus_info));
	/* The firmware of this card is its program set. */
	snprintf(info->fw_version, sizeof(info->fw_version), "set %u, %s",
		 bp->gen ? bp->gen->id : 0,
		 !bp->gen ? "none" : bp->gen->verified ? "verified" : "UNVERIFIED");
}

static int bpfhv_get_sset_count(struct net_device *dev, int sset)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	if (sset != ETH_SS_STATS)
		return -EOPNOTSUPP;
	return ARRAY_SIZE(bpfhv_global_names) + bpfhv_n_queues(bp) * BPFHV_N_STATS;
}

static __printf(2, 3) void bpfhv_put_string(u8 **data, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(*data, ETH_GSTRING_LEN, format, args);
	va_end(args);
	*data += ETH_GSTRING_LEN;
}

static void bpfhv_get_strings(struct net_device *dev, u32 sset, u8 *data)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	unsigned int i, j;

	if (sset != ETH_SS_STATS)
		return;
	for (i = 0; i < ARRAY_SIZE(bpfhv_global_names); i++)
		bpfhv_put_string(&data, "%s", bpfhv_global_names[i]);
	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		struct bpfhv_queue *q = &bp->queues[i];

		for (j = 0; j < BPFHV_N_STATS; j++)
			bpfhv_put_string(&data, "%s%u_%s", q->tx ? "tx" : "rx",
					 q->tx ? i - bp->n_pairs : i, bpfhv_stat_names[j]);
	}
}

static void bpfhv_get_ethtool_stats(struct net_device *dev, struct ethtool_stats *stats, u64 *data)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	unsigned int i, start;

	*data++ = bp->gen && bp->gen->verified;
	*data++ = bp->gen ? bp->gen->id : 0;
	*data++ = bp->resets;
	*data++ = bp->upgrades;
	*data++ = bp->upgrades_delayed;
	*data++ = bp->losses;
	*data++ = bp->recoveries;
	*data++ = bp->recovery_failures;
	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		struct bpfhv_queue *q = &bp->queues[i];

		do {
			start = u64_stats_fetch_begin(&q->sync);
			memcpy(data, &q->stats, sizeof(q->stats));
		} while (u64_stats_fetch_retry(&q->sync, start));
		data += BPFHV_N_STATS;
	}
}

static void bpfhv_get_ringparam(struct net_device *dev,
				struct ethtool_ringparam *ring BPFHV_RINGPARAM_MORE)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	/* The device decides the ring sizes: they are read-only. */
	ring->rx_max_pending = bp->rx_bufs;
	ring->rx_pending = bp->rx_bufs;
	ring->tx_max_pending = bp->tx_bufs;
	ring->tx_pending = bp->tx_bufs;
}

static void bpfhv_get_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	channels->max_rx = bp->n_pairs;
	channels->max_tx = bp->n_pairs;
	channels->max_other = 1;
	channels->rx_count = bp->n_pairs;
	channels->tx_count = bp->n_pairs;
	channels->other_count = 1;
}

static int bpfhv_get_coalesce(struct net_device *dev,
			      struct ethtool_coalesce *coal BPFHV_COALESCE_MORE)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	u32 rx = bp->coalesce & 0xffff, tx = bp->coalesce >> 16;

	if (!(bp->abilities & BPFHV_ABILITY_COALESCE))
		return -EOPNOTSUPP;
	coal->rx_coalesce_usecs = rx & ~BPFHV_COALESCE_ADAPTIVE;
	coal->use_adaptive_rx_coalesce = !!(rx & BPFHV_COALESCE_ADAPTIVE);
	coal->tx_coalesce_usecs = tx & ~BPFHV_COALESCE_ADAPTIVE;
	coal->use_adaptive_tx_coalesce = !!(tx & BPFHV_COALESCE_ADAPTIVE);
	return 0;
}

/* A device that was reset has forgotten it. */
void bpfhv_coalesce_apply(struct bpfhv_priv *bp)
{
	if (bp->abilities & BPFHV_ABILITY_COALESCE)
		bpfhv_write(bp, BPFHV_REG_COALESCE, bp->coalesce);
}

static int bpfhv_set_coalesce(struct net_device *dev,
			      struct ethtool_coalesce *coal BPFHV_COALESCE_MORE)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	u32 rx = coal->rx_coalesce_usecs, tx = coal->tx_coalesce_usecs;

	if (!(bp->abilities & BPFHV_ABILITY_COALESCE)) {
		NL_SET_ERR_MSG(BPFHV_COALESCE_EXTACK, "the host cannot hold interrupts back");
		return -EOPNOTSUPP;
	}
	if (rx > BPFHV_MAX_COALESCE_US || tx > BPFHV_MAX_COALESCE_US) {
		NL_SET_ERR_MSG(BPFHV_COALESCE_EXTACK, "the longest time is 10000 microseconds");
		return -EINVAL;
	}
	if (coal->use_adaptive_rx_coalesce)
		rx |= BPFHV_COALESCE_ADAPTIVE;
	if (coal->use_adaptive_tx_coalesce)
		tx |= BPFHV_COALESCE_ADAPTIVE;
	WRITE_ONCE(bp->coalesce, tx << 16 | rx);
	bpfhv_coalesce_apply(bp);
	return 0;
}

/*
 * Rings and queues are laid out when the device starts, and the driver has no second set of rings
 * to change to while packets flow.
 */
static int bpfhv_set_ringparam(struct net_device *dev,
			       struct ethtool_ringparam *ring BPFHV_RINGPARAM_MORE)
{
	NL_SET_ERR_MSG(BPFHV_RINGPARAM_EXTACK,
		       "the host chooses the ring sizes (bpfhv serve --rx-bufs, --tx-bufs)");
	return -EOPNOTSUPP;
}

static int bpfhv_set_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	netdev_info(dev, "the host chooses the number of queues (bpfhv serve --queues)\n");
	return -EOPNOTSUPP;
}

static int bpfhv_get_link_ksettings(struct net_device *dev, struct ethtool_link_ksettings *cmd)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	/* Cached: bonds and others read it often, under RTNL. */
	cmd->base.speed = bp->speed;
	cmd->base.duplex = bp->duplex;
	cmd->base.port = PORT_OTHER;
	return 0;
}

/* A label only: 802.3ad aggregates links that say the same speed. */
static int bpfhv_set_link_ksettings(struct net_device *dev,
				    const struct ethtool_link_ksettings *cmd)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	return ethtool_virtdev_set_link_ksettings(dev, cmd, &bp->speed, &bp->duplex);
}

static int bpfhv_get_regs_len(struct net_device *dev)
{
	return BPFHV_REG_EXT_END;
}

static void bpfhv_get_regs(struct net_device *dev, struct ethtool_regs *regs, void *data)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	u32 *words = data;
	unsigned int i;

	regs->version = BPFHV_VERSION;
	for (i = 0; i < BPFHV_REG_EXT_END / 4; i++)
		words[i] = bpfhv_read(bp, 4 * i);
}

const struct ethtool_ops bpfhv_ethtool_ops = {
	.supported_coalesce_params = ETHTOOL_COALESCE_USECS | ETHTOOL_COALESCE_USE_ADAPTIVE,
	.get_coalesce = bpfhv_get_coalesce,
	.set_coalesce = bpfhv_set_coalesce,
	.get_rxfh_key_size = bpfhv_get_rxfh_key_size,
	.get_rxfh_indir_size = bpfhv_get_rxfh_indir_size,
	.get_rxfh = bpfhv_get_rxfh,
	.set_rxfh = bpfhv_set_rxfh,
#if BPFHV_HAS_RXFH_FIELDS
	.get_rxfh_fields = bpfhv_get_rxfh_fields,
	.set_rxfh_fields = bpfhv_set_rxfh_fields,
#endif
#if BPFHV_HAS_RX_RING_COUNT
	.get_rx_ring_count = bpfhv_get_rx_ring_count,
#endif
	.get_rxnfc = bpfhv_get_rxnfc,
	.set_rxnfc = bpfhv_set_rxnfc,
	.get_drvinfo = bpfhv_get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_sset_count = bpfhv_get_sset_count,
	.get_strings = bpfhv_get_strings,
	.get_ethtool_stats = bpfhv_get_ethtool_stats,
	.get_ringparam = bpfhv_get_ringparam,
	.set_ringparam = bpfhv_set_ringparam,
	.get_channels = bpfhv_get_channels,
	.set_channels = bpfhv_set_channels,
	.get_link_ksettings = bpfhv_get_link_ksettings,
	.set_link_ksettings = bpfhv_set_link_ksettings,
	.get_ts_info = ethtool_op_get_ts_info,
	.get_regs_len = bpfhv_get_regs_len,
	.get_regs = bpfhv_get_regs,
};
