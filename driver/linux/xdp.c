// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * XDP: programs that see received packets before the stack does, and drop, change, send back or
 * redirect them. Nothing is restarted to attach one: buffers published before have less headroom,
 * so their packets move to new ones.
 */
#include <linux/bpf.h>
#include <linux/rtnetlink.h>

#include "bpfhv_xdp.h"

#if BPFHV_HAS_XDP

/* Tells XDP about a queue that goes up. */
int bpfhv_xdp_register(struct bpfhv_queue *q)
{
	int err;

	err = xdp_rxq_info_reg(&q->xdp_rxq, q->bp->netdev, q->index, q->napi.napi_id);
	if (err)
		return err;
	return xdp_rxq_info_reg_mem_model(&q->xdp_rxq, MEM_TYPE_PAGE_POOL, q->pool);
}

void bpfhv_xdp_unregister(struct bpfhv_queue *q)
{
	if (xdp_rxq_info_is_reg(&q->xdp_rxq))
		xdp_rxq_info_unreg(&q->xdp_rxq);
}

/* Returns false if the attached program cannot see the packets of an MTU. */
bool bpfhv_xdp_takes_mtu(struct bpfhv_priv *bp, unsigned int mtu)
{
	const struct bpf_prog *prog = bpfhv_xdp_prog(bp);

	if (!prog || prog->aux->xdp_has_frags || bpfhv_rx_fits_one(bp, mtu))
		return true;
	netdev_warn(bp->netdev, "MTU %u: packets would take several buffers, which the XDP program does not support (section xdp.frags)\n",
		    mtu);
	return false;
}

/* Shows what programs may do with this NIC, which depends on the set. */
void bpfhv_xdp_show(struct bpfhv_priv *bp)
{
#if BPFHV_HAS_XDP_FEATURES
	xdp_features_t can = NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT |
			     NETDEV_XDP_ACT_NDO_XMIT | NETDEV_XDP_ACT_RX_SG;

	if (bp->selected & BPFHV_F_SG)
		can |= NETDEV_XDP_ACT_NDO_XMIT_SG;
	if (bp->netdev->reg_state == NETREG_REGISTERED)
		xdp_set_features_flag(bp->netdev, can);
	else
		bp->netdev->xdp_features = can;
#endif
}

static int bpfhv_xdp_setup(struct bpfhv_priv *bp, struct bpf_prog *prog,
			   struct netlink_ext_ack *extack)
{
	const struct bpfhv_terms *next = bpfhv_next_terms(bp);
	u32 selected = bp->selected | (next ? next->selected : 0);
	struct bpf_prog *before = bpfhv_xdp_prog(bp);

	if (prog && (selected & BPFHV_F_LRO)) {
		NL_SET_ERR_MSG_MOD(extack, "the host merges packets: turn that off with ethtool -K DEV rx-gro-hw off");
		return -EOPNOTSUPP;
	}
	if (prog && !prog->aux->xdp_has_frags && !bpfhv_rx_fits_one(bp, bp->netdev->mtu)) {
		NL_SET_ERR_MSG_MOD(extack, "packets of this MTU take several buffers: lower the MTU, or use a program of section xdp.frags");
		return -EOPNOTSUPP;
	}
	rcu_assign_pointer(bp->xdp_prog, prog);
	if (before)
		bpf_prog_put(before);
	return 0;
}

int bpfhv_bpf(struct net_device *dev, struct netdev_bpf *bpf)
{
	if (bpf->command != XDP_SETUP_PROG)
		return -EINVAL;
	return bpfhv_xdp_setup(netdev_priv(dev), bpf->prog, bpf->extack);
}

#endif /* BPFHV_HAS_XDP */
