/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* One NIC, and what the files of this driver call of each other. */
#ifndef BPFHV_H
#define BPFHV_H

#include <linux/pci.h>
#include <linux/workqueue.h>

#include "bpfhv_ring.h"
#include "bpfhv_rss.h"

#define BPFHV_NAME		"bpfhv"
#define BPFHV_COPYBREAK		256
/* Completions that one transmit call reclaims before it sends. */
#define BPFHV_TX_RECLAIM_XMIT	64
/* Longest time before a completion is reclaimed if nothing waits for it. */
#define BPFHV_TX_DELAY_NS	(2 * NSEC_PER_MSEC)
/* Poll period of a receive queue without an interrupt vector. */
#define BPFHV_RX_POLL_NS	NSEC_PER_MSEC
/* Receive polls right after a doorbell that may find nothing before they stop. */
#define BPFHV_REPLY_POLLS	8
/* After that, one doorbell in this many is followed by a poll again. */
#define BPFHV_REPLY_PROBE	64
/* Consecutive polls without work, although the host promised some, before a reset. */
#define BPFHV_MAX_IDLE_POLLS	64
/* Least time between two reads of EVENT and STATUS. */
#define BPFHV_CTRL_GAP		(HZ / 10)
/* Least time between two resets: a misbehaving host must not keep a CPU busy. */
#define BPFHV_RESET_GAP		HZ
/* Seconds without a completion before a stopped transmit queue is reset, again after as many. */
#define BPFHV_PATIENCE_MIN	30U
#define BPFHV_PATIENCE_MAX	480U

struct bpfhv_priv {
	struct net_device *netdev;
	struct pci_dev *pdev;
	void __iomem *regs;
	void __iomem *doorbells;
	void __iomem *program;
	struct bpfhv_gen *gen;
	unsigned int n_pairs;
	unsigned int n_vectors;
	u32 abilities;		/* acknowledged */
	u32 switched_off;	/* features disabled by the user */
	/* Of the current generation, or of the one that is being made in its place. */
	u32 offered;		/* features */
	u32 selected;
	netdev_features_t features;	/* the stack's flags for the selected ones */
	u32 rx_bufs, tx_bufs;
	struct bpfhv_rx_layout rx_layout[2];	/* for the stack, for XDP; constant while up */
	struct bpf_prog __rcu *xdp_prog;
	bool gone;		/* the device answers all ones */
	bool running;		/* contexts registered, device enabled */
	bool parked;		/* stopped, but its buffers stay: it may still write to them */
	bool dying;		/* under work_lock: no work may be queued */
	spinlock_t work_lock;
	unsigned long last_ctrl;	/* when EVENT and STATUS were last read */
	unsigned long trouble;	/* what recovery is to mend: bits BPFHV_TROUBLE_ */
	unsigned long not_before;	/* the next attempt to recover, in jiffies */
	unsigned long backoff;	/* its distance from the one before, in jiffies */
	u64 resets;
	u64 losses;		/* times that the device was gone */
	u64 recoveries;		/* starts from the device's power-on state */
	u64 recovery_failures;
	u64 upgrades;
	u64 upgrades_delayed;	/* too soon after the one before */
	unsigned long upgrade_next;	/* the earliest next one, in jiffies */
	int ctrl_irq;		/* 0: it has no vector */
	char irq_name[48];
	struct delayed_work ctrl_work;
	struct delayed_work recover_work;
	struct delayed_work set_work;
	struct delayed_work watch_work;
	struct delayed_work upgrade_work;
	struct bpfhv_upgrade upgrade;
	struct bpfhv_load load;
	struct kthread_worker *loader;	/* the thread that makes generations */
	u32 coalesce;		/* the COALESCE register */
	struct bpfhv_flow_hash hash;
	u32 speed;		/* Mb/s, as ethtool shows it: the host's, or what the user set */
	u8 duplex;
	struct delayed_work filter_work;
	struct mutex filter_lock;	/* the filter's memory and registers */
	struct bpfhv_filter *filter;
	dma_addr_t filter_dma;
	struct bpfhv_queue queues[2 * BPFHV_MAX_PAIRS];	/* RX, then TX */
};

extern bool bpfhv_allow_unverified;
extern bool bpfhv_version1;
extern bool bpfhv_overlap;

static inline struct bpfhv_queue *bpfhv_rxq(struct bpfhv_priv *bp, unsigned int i)
{
	return &bp->queues[i];
}

static inline struct bpfhv_queue *bpfhv_txq(struct bpfhv_priv *bp, unsigned int i)
{
	return &bp->queues[bp->n_pairs + i];
}

static inline unsigned int bpfhv_n_queues(const struct bpfhv_priv *bp)
{
	return 2 * bp->n_pairs;
}

static inline struct netdev_queue *bpfhv_netdev_txq(struct bpfhv_queue *q)
{
	return netdev_get_tx_queue(q->bp->netdev, q->index - q->bp->n_pairs);
}

/* Without interrupts, timers do what they would: so long do they wait. */
static inline u64 bpfhv_rx_poll_ns(const struct bpfhv_priv *bp)
{
	u32 us = READ_ONCE(bp->coalesce) & (BPFHV_COALESCE_ADAPTIVE - 1);

	return us ? us * NSEC_PER_USEC : BPFHV_RX_POLL_NS;
}

static inline u64 bpfhv_tx_delay_ns(const struct bpfhv_priv *bp)
{
	u32 us = READ_ONCE(bp->coalesce) >> 16 & (BPFHV_COALESCE_ADAPTIVE - 1);

	return us ? us * NSEC_PER_USEC : BPFHV_TX_DELAY_NS;
}

/* hw.c */
void bpfhv_schedule(struct bpfhv_priv *bp, struct delayed_work *work, unsigned long delay);
void bpfhv_start_work(struct bpfhv_priv *bp);
void bpfhv_stop_work(struct bpfhv_priv *bp);
u32 bpfhv_read(struct bpfhv_priv *bp, u32 reg);
void bpfhv_write(struct bpfhv_priv *bp, u32 reg, u32 value);
void bpfhv_write_sync(struct bpfhv_priv *bp, u32 reg, u32 value);
void bpfhv_write_address(struct bpfhv_priv *bp, u32 low, u64 address);
void bpfhv_kick(struct bpfhv_queue *q);
int bpfhv_register_context(struct bpfhv_priv *bp, unsigned int queue, struct bpfhv_ring *r);
void bpfhv_unregister_context(struct bpfhv_priv *bp, unsigned int queue);
void bpfhv_request_reset(struct bpfhv_queue *q, const char *why);
bool bpfhv_work_pending(struct bpfhv_queue *q, int ret, unsigned int found);
int bpfhv_discover(struct bpfhv_priv *bp);
void bpfhv_read_speed(struct bpfhv_priv *bp);
void bpfhv_negotiate(struct bpfhv_priv *bp);
void bpfhv_agree(struct bpfhv_priv *bp, struct bpfhv_terms *terms);
void bpfhv_log_dump(struct bpfhv_priv *bp);

/* fetch.c */
struct bpfhv_code {
	struct bpf_insn *insns;
	u32 len;
};

int bpfhv_fetch(struct bpfhv_priv *bp, u32 generation, struct bpfhv_code *code);
void bpfhv_free_code(struct bpfhv_code *code);

/* progs.c: handles one program or one context per call, in the loader's thread */
#define BPFHV_WHERE_UNKNOWN	0xffffff	/* as in VERDICT_INFO */

int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd);
int bpfhv_verified_load(struct bpfhv_ring *r, int map_fd, enum bpfhv_prog_id id,
			const struct bpfhv_code *code, u32 *where);
void bpfhv_verified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r);

/* legacy.c: the same for version 1 sets and for kernels without kern_sys_bpf() */
int bpfhv_unverified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r);
int bpfhv_unverified_load(struct bpfhv_ring *r, enum bpfhv_prog_id id,
			  const struct bpfhv_code *code, u32 *where);
void bpfhv_unverified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r);

/* pure.c, form.c */
int bpfhv_check_pure(const struct bpfhv_code *code, u32 *where);
int bpfhv_check_form(const struct bpfhv_code *code, u32 *where);
u32 bpfhv_fuelled_len(const struct bpfhv_code *code);
int bpfhv_add_fuel(const struct bpfhv_code *code, struct bpf_insn *to, u32 *at);

const char *bpfhv_prog_name(enum bpfhv_prog_id id);

/* loader.c */
int bpfhv_loader_start(struct bpfhv_priv *bp);
void bpfhv_loader_stop(struct bpfhv_priv *bp);
void bpfhv_load_start(struct bpfhv_priv *bp);
void bpfhv_load_finish(struct bpfhv_priv *bp);
int bpfhv_gen_prepare(struct bpfhv_gen *gen, const struct bpfhv_code *code);

/* gen.c */
struct bpfhv_gen *bpfhv_gen_load(struct bpfhv_priv *bp);
struct bpfhv_gen *bpfhv_gen_alloc(struct bpfhv_priv *bp, u32 id);
int bpfhv_gen_read(struct bpfhv_gen *gen, struct bpfhv_code *code);
int bpfhv_gen_make(struct bpfhv_gen *gen, const struct bpfhv_code *code);
void bpfhv_judge(struct bpfhv_priv *bp, u32 id, u32 code, u32 info);
void bpfhv_gen_put(struct bpfhv_gen *gen);
void bpfhv_gen_keep(struct bpfhv_gen *gen);
void bpfhv_gen_use(struct bpfhv_priv *bp, struct bpfhv_gen *gen);
void bpfhv_gen_announce(const struct bpfhv_gen *gen);
void bpfhv_ring_reset(struct bpfhv_ring *r);
int bpfhv_slot_alloc(struct bpfhv_ring *r);
bool bpfhv_slot_free(struct bpfhv_ring *r, u64 cookie, u32 *id);

/* offload.c */
#define BPFHV_F_LRO	(BPFHV_F_TCP_V4_LRO | BPFHV_F_TCP_V6_LRO | BPFHV_F_UDP_LRO)

u32 bpfhv_wanted_features(const struct bpfhv_priv *bp);
netdev_features_t bpfhv_netdev_features(u32 features);
void bpfhv_set_features_from_selected(struct bpfhv_priv *bp);
void bpfhv_want_later_features(struct bpfhv_priv *bp);
netdev_features_t bpfhv_fix_features(struct net_device *dev, netdev_features_t features);
int bpfhv_set_features(struct net_device *dev, netdev_features_t features);
void bpfhv_restore_features(struct bpfhv_priv *bp);
int bpfhv_tx_metadata(struct bpfhv_ring *r, struct sk_buff *skb);
bool bpfhv_tx_can_send(const struct bpfhv_ring *r, struct sk_buff *skb);
struct sk_buff *bpfhv_tx_sw_fallback(const struct bpfhv_ring *r, struct sk_buff *skb);
int bpfhv_rx_metadata(struct bpfhv_ring *r, struct sk_buff *skb);

/* tx_map.c */
u32 bpfhv_tx_bufs(const struct sk_buff *skb);
int bpfhv_tx_map_buf(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 i, const void *head,
		     const skb_frag_t *frag, u32 len);
void bpfhv_tx_undo(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 done);
int bpfhv_tx_run(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 used);
bool bpfhv_tx_drop(struct bpfhv_slot *slot);
void bpfhv_tx_unmap(struct bpfhv_queue *q, struct bpfhv_slot *slot);
int bpfhv_tx_publish(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb);
int bpfhv_tx_return(struct bpfhv_queue *q, struct bpfhv_ring *r, int budget,
		    unsigned int *bytes);

/* tx_hold.c */
void bpfhv_tx_hold(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb);
void bpfhv_tx_send_held(struct bpfhv_queue *q, struct bpfhv_ring *r);
void bpfhv_tx_drop_held(struct bpfhv_queue *q);

/* tx.c */
unsigned int bpfhv_tx_reclaim(struct bpfhv_queue *q, struct bpfhv_ring *r, int max, int budget);
int bpfhv_tx_schedule_reclaim(struct bpfhv_queue *q, struct bpfhv_ring *r,
			      struct netdev_queue *txq);
bool bpfhv_tx_send(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb, bool more);
netdev_tx_t bpfhv_start_xmit(struct sk_buff *skb, struct net_device *dev);
int bpfhv_tx_poll(struct napi_struct *napi, int budget);
void bpfhv_tx_reclaim_from_rx(struct bpfhv_queue *q);
unsigned int bpfhv_tx_reclaim_old(struct bpfhv_queue *q, int budget);
void bpfhv_tx_kick(struct bpfhv_queue *q);
void bpfhv_tx_continue(struct bpfhv_queue *q);
enum hrtimer_restart bpfhv_tx_timer(struct hrtimer *timer);

/* tx_next.c */
void bpfhv_tx_cut(struct bpfhv_queue *q, struct bpfhv_ring *next);
bool bpfhv_tx_retire(struct bpfhv_queue *q);
void bpfhv_tx_drain(struct bpfhv_queue *q);

/* rx_skb.c */
void *bpfhv_rx_data(const struct bpfhv_queue *q, const struct bpfhv_slot *slot);
struct sk_buff *bpfhv_rx_copy(struct bpfhv_queue *q, const void *data, u32 len);
int bpfhv_rx_packet(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff **out);

/* rx_share.c */
void bpfhv_share_begin(struct bpfhv_share *share);
u64 bpfhv_share_end(struct bpfhv_share *share);

/* rx_buf.c */
unsigned int bpfhv_rx_max_mtu(const struct bpfhv_priv *bp);
bool bpfhv_rx_relayout(const struct bpfhv_priv *bp, unsigned int mtu);
bool bpfhv_rx_fits_one(const struct bpfhv_priv *bp, unsigned int mtu);
int bpfhv_rx_alloc(struct bpfhv_queue *q, struct bpfhv_slot *slot, bool roomy);
int bpfhv_rx_setup(struct bpfhv_queue *q);
void bpfhv_rx_teardown(struct bpfhv_queue *q);
bool bpfhv_rx_refill(struct bpfhv_queue *q, struct bpfhv_ring *r);
int bpfhv_rx_publish(struct bpfhv_queue *q, struct bpfhv_ring *r, bool *kick);
bool bpfhv_rx_fits(const struct bpfhv_priv *bp, const struct bpfhv_terms *terms);

/* rx.c */
int bpfhv_rx_poll(struct napi_struct *napi, int budget);
int bpfhv_rx_clean(struct bpfhv_queue *q, struct bpfhv_ring *r, int max, int *ret);
void bpfhv_rx_release(struct bpfhv_queue *q, struct bpfhv_ring *r);
void bpfhv_rx_keep(struct bpfhv_queue *q);
void bpfhv_rx_drain(struct bpfhv_queue *q);
enum hrtimer_restart bpfhv_rx_timer(struct hrtimer *timer);

/* rx_next.c */
void bpfhv_rx_start_next(struct bpfhv_queue *q, struct bpfhv_ring *next);
void bpfhv_rx_handle_next(struct bpfhv_queue *q);
bool bpfhv_rx_clean_old(struct bpfhv_queue *q, int budget, int *done);
bool bpfhv_rx_retire(struct bpfhv_queue *q);

/* irq.c */
int bpfhv_request_irqs(struct bpfhv_priv *bp);
void bpfhv_free_irqs(struct bpfhv_priv *bp);

/* netdev.c */
extern const struct net_device_ops bpfhv_netdev_ops;
int bpfhv_up(struct bpfhv_priv *bp);
void bpfhv_down(struct bpfhv_priv *bp);
int bpfhv_unpark(struct bpfhv_priv *bp);
void bpfhv_abandon(struct bpfhv_priv *bp);
void bpfhv_update_mtu(struct bpfhv_priv *bp);
void bpfhv_update_link(struct bpfhv_priv *bp);

/* set.c */
bool bpfhv_may_work(const struct bpfhv_priv *bp);
int bpfhv_set_begin(struct bpfhv_priv *bp, enum bpfhv_load_reason why);
bool bpfhv_set_wait(struct bpfhv_priv *bp);
int bpfhv_set_end(struct bpfhv_priv *bp);
void bpfhv_set_drop(struct bpfhv_priv *bp);
int bpfhv_renew(struct bpfhv_priv *bp, u32 before);
void bpfhv_set_work(struct work_struct *work);

/* control.c */
void bpfhv_ctrl_work(struct work_struct *work);

/* recover.c */
enum bpfhv_trouble {
	BPFHV_TROUBLE_QUEUE,	/* a queue broke, or the host requested a reset */
	BPFHV_TROUBLE_STUCK,	/* a transmit queue timed out */
	BPFHV_TROUBLE_LOST,	/* the device does not have what was negotiated */
};

void bpfhv_recover(struct bpfhv_priv *bp, unsigned int trouble);
void bpfhv_recover_later(struct bpfhv_priv *bp, int err);
void bpfhv_recovered(struct bpfhv_priv *bp);
bool bpfhv_forgot(struct bpfhv_priv *bp);
void bpfhv_detach(struct bpfhv_priv *bp);
int bpfhv_start_over(struct bpfhv_priv *bp);
void bpfhv_recover_work(struct work_struct *work);
void bpfhv_watch(struct bpfhv_priv *bp);
void bpfhv_watch_work(struct work_struct *work);
void bpfhv_pause(struct bpfhv_priv *bp);
void bpfhv_continue(struct bpfhv_priv *bp);

/* upgrade.c */
const struct bpfhv_terms *bpfhv_next_terms(const struct bpfhv_priv *bp);
void bpfhv_upgrade_work(struct work_struct *work);
void bpfhv_upgrade_stopped(struct bpfhv_priv *bp);

/* filter.c */
int bpfhv_filter_init(struct bpfhv_priv *bp);
void bpfhv_set_rx_mode(struct net_device *dev);
int bpfhv_set_mac_address(struct net_device *dev, void *addr);

/* qstats.c */
void bpfhv_get_stats64(struct net_device *dev, struct rtnl_link_stats64 *s);
void bpfhv_qstats_init(struct bpfhv_priv *bp);
void bpfhv_show_napi(struct bpfhv_priv *bp, bool up);

/* ethtool.c */
void bpfhv_coalesce_apply(struct bpfhv_priv *bp);
extern const struct ethtool_ops bpfhv_ethtool_ops;

#endif /* BPFHV_H */
