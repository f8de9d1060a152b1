// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The receive filter: which frames the host passes on, and the guest's own address.
 *
 * A request waits for the host, and the stack changes its lists under a spinlock: a worker tells
 * the host. Only a change of the guest's own address waits, as the host may refuse it.
 */
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>

#include "bpfhv.h"

#define BPFHV_FILTER_SIZE	offsetof(struct bpfhv_filter, entries[BPFHV_MAX_FILTER_ADDRESSES])

/* Copies the stack's lists. What does not fit widens the filter. */
static void bpfhv_filter_fill(struct bpfhv_priv *bp, const u8 *own)
{
	struct net_device *dev = bp->netdev;
	struct bpfhv_filter *f = bp->filter;
	u16 mode = BPFHV_FILTER_LIST, n = 0;
	struct netdev_hw_addr *ha;

	memset(f, 0, BPFHV_FILTER_SIZE);
	ether_addr_copy(f->entries[n++].address, own);
	netif_addr_lock_bh(dev);
	if (dev->flags & IFF_PROMISC || netdev_uc_count(dev) >= BPFHV_MAX_FILTER_ADDRESSES) {
		mode = BPFHV_FILTER_ALL;
		goto out;
	}
	netdev_for_each_uc_addr(ha, dev)
		ether_addr_copy(f->entries[n++].address, ha->addr);
	if (dev->flags & IFF_ALLMULTI ||
	    netdev_mc_count(dev) > BPFHV_MAX_FILTER_ADDRESSES - n) {
		mode = BPFHV_FILTER_ALL_MULTICAST;
		goto out;
	}
	netdev_for_each_mc_addr(ha, dev)
		ether_addr_copy(f->entries[n++].address, ha->addr);
out:
	netif_addr_unlock_bh(dev);
	f->mode = cpu_to_le16(mode);
	f->count = cpu_to_le16(n);
}

/*
 * Tells the host the filter, with this own address. Returns -EPERM if the guest may not have it;
 * the filter before stays in use then.
 */
static int bpfhv_filter_request(struct bpfhv_priv *bp, const u8 *own)
{
	u32 result;

	lockdep_assert_held(&bp->filter_lock);
	bpfhv_filter_fill(bp, own);
	dma_wmb();
	bpfhv_write_address(bp, BPFHV_REG_FILTER_LO, bp->filter_dma);
	result = (bpfhv_read(bp, BPFHV_REG_FILTER_STATE) >> 8) & 0xff;
	if (bp->gone || result == BPFHV_FILTER_OK)
		return 0;
	if (result == BPFHV_FILTER_ADDRESS)
		return -EPERM;
	/* What passed before may lack an address: better none than a wrong filter. */
	netdev_warn_once(bp->netdev, "the host refused the receive filter: every frame passes\n");
	bpfhv_write_address(bp, BPFHV_REG_FILTER_LO, 0);
	return 0;
}

static void bpfhv_filter_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv,
					     filter_work);
	u8 own[ETH_ALEN];

	mutex_lock(&bp->filter_lock);
	if (!(bp->abilities & BPFHV_ABILITY_FILTER))
		goto out;
	/* A change of the address schedules this again. */
	ether_addr_copy(own, bp->netdev->dev_addr);
	if (bpfhv_filter_request(bp, own)) {
		netdev_warn_once(bp->netdev, "the host drops what is sent from %pM\n", own);
		bpfhv_write_address(bp, BPFHV_REG_FILTER_LO, 0);
	}
out:
	mutex_unlock(&bp->filter_lock);
}

void bpfhv_set_rx_mode(struct net_device *dev)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	if (bp->abilities & BPFHV_ABILITY_FILTER)
		bpfhv_schedule(bp, &bp->filter_work, 0);
}

int bpfhv_set_mac_address(struct net_device *dev, void *addr)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	const u8 *own = ((struct sockaddr *)addr)->sa_data;
	int err = eth_prepare_mac_addr_change(dev, addr);

	if (err)
		return err;
	if (bp->abilities & BPFHV_ABILITY_FILTER) {
		mutex_lock(&bp->filter_lock);
		err = bpfhv_filter_request(bp, own);
		mutex_unlock(&bp->filter_lock);
	}
	if (err) {
		netdev_err(dev, "address %pM refused: the host drops what is sent from there\n", own);
		return err;
	}
	eth_commit_mac_addr_change(dev, addr);
	/* The worker may have told the address before in between. */
	bpfhv_set_rx_mode(dev);
	return 0;
}

int bpfhv_filter_init(struct bpfhv_priv *bp)
{
	mutex_init(&bp->filter_lock);
	INIT_DELAYED_WORK(&bp->filter_work, bpfhv_filter_work);
	bp->filter = dmam_alloc_coherent(&bp->pdev->dev, BPFHV_FILTER_SIZE, &bp->filter_dma,
					 GFP_KERNEL);
	return bp->filter ? 0 : -ENOMEM;
}
