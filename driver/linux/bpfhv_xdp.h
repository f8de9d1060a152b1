/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the driver's XDP files call of each other, and the others of them. */
#ifndef BPFHV_XDP_H
#define BPFHV_XDP_H

#include "bpfhv.h"

#define BPFHV_XDP_TX		BIT(0)
#define BPFHV_XDP_REDIRECT	BIT(1)

/* Of bpfhv_xdp_packet(): the program did not pass the packet. */
#define BPFHV_RX_TAKEN		2

#if BPFHV_HAS_XDP
/* Returns the attached program. In a poll, or under RTNL. */
static inline struct bpf_prog *bpfhv_xdp_prog(const struct bpfhv_priv *bp)
{
	return rcu_dereference_check(bp->xdp_prog, rcu_read_lock_bh_held() ||
				     lockdep_rtnl_is_held());
}

/* xdp_rx.c */
int bpfhv_xdp_packet(struct bpfhv_queue *q, struct bpfhv_ring *r, struct bpf_prog *prog,
		     struct sk_buff **out);
void bpfhv_xdp_flush(struct bpfhv_queue *q);

/* xdp.c */
int bpfhv_xdp_register(struct bpfhv_queue *q);
void bpfhv_xdp_unregister(struct bpfhv_queue *q);
bool bpfhv_xdp_takes_mtu(struct bpfhv_priv *bp, unsigned int mtu);
void bpfhv_xdp_show(struct bpfhv_priv *bp);
int bpfhv_bpf(struct net_device *dev, struct netdev_bpf *bpf);

/* xdp_tx.c */
int bpfhv_xdp_send(struct bpfhv_queue *q, struct xdp_frame *frame);
void bpfhv_xdp_release(struct xdp_frame *frame);
void bpfhv_xdp_sent(struct bpfhv_queue *q);
int bpfhv_xdp_xmit(struct net_device *dev, int n, struct xdp_frame **frames, u32 flags);
#else
static inline struct bpf_prog *bpfhv_xdp_prog(const struct bpfhv_priv *bp)
{
	return NULL;
}

static inline int bpfhv_xdp_packet(struct bpfhv_queue *q, struct bpfhv_ring *r,
				   struct bpf_prog *prog, struct sk_buff **out)
{
	return -EOPNOTSUPP;
}

static inline int bpfhv_xdp_register(struct bpfhv_queue *q)
{
	return 0;
}

static inline bool bpfhv_xdp_takes_mtu(struct bpfhv_priv *bp, unsigned int mtu)
{
	return true;
}

static inline void bpfhv_xdp_release(struct xdp_frame *frame) {}
static inline void bpfhv_xdp_flush(struct bpfhv_queue *q) {}
static inline void bpfhv_xdp_unregister(struct bpfhv_queue *q) {}
static inline void bpfhv_xdp_show(struct bpfhv_priv *bp) {}
#endif

#endif /* BPFHV_XDP_H */
