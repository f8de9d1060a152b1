/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * All differences between kernels are in this file. Which of them this kernel has is probed when
 * the module is built, not concluded from its version: distributions backport. To ask for another,
 * add a line to probe.sh.
 */
#ifndef BPFHV_COMPAT_H
#define BPFHV_COMPAT_H

#include "bpfhv_config.h"

/*
 * kern_sys_bpf() and bpf_map_get() are exported from 6.0 on. With them the kernel's own verifier
 * checks the programs that the host ships.
 */
#if BPFHV_HAS_KERN_SYS_BPF
/* Exported for light skeletons, which declare it themselves: no header does. */
union bpf_attr;
int kern_sys_bpf(int cmd, union bpf_attr *attr, unsigned int size);
#endif

/*
 * Namespace of those exports, if they have one (from 6.12 on, BPF_INTERNAL). The macro's argument
 * became a string in 6.13.
 */
#if defined(BPFHV_BPF_NAMESPACE) && BPFHV_HAS_IMPORT_NS_STRING
#define BPFHV_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS(__stringify(BPFHV_BPF_NAMESPACE))
#elif defined(BPFHV_BPF_NAMESPACE)
#define BPFHV_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS(BPFHV_BPF_NAMESPACE)
#else
#define BPFHV_IMPORT_BPF_INTERNAL struct bpfhv_no_namespace
#endif

#if BPFHV_HAS_PAGE_POOL_HELPERS_H
#include <net/page_pool/helpers.h>
#else
#include <net/page_pool.h>
#endif

#if BPFHV_HAS_GSO_H
#include <net/gso.h>
#endif

/* Renamed in 5.11. Without CONFIG_CRYPTO_LIB_SHA256 the blob's hash is not checked. */
#if BPFHV_HAS_SHA2_H
#include <crypto/sha2.h>
#else
#include <crypto/sha.h>
#endif
#define BPFHV_HAVE_SHA256	IS_REACHABLE(CONFIG_CRYPTO_LIB_SHA256)

/*
 * From 5.15 on, packets return their pages to the pool. Before, a page is unmapped when it leaves
 * the pool.
 */
#if BPFHV_HAS_SKB_RECYCLE
#define bpfhv_release_page(pool, page)	((void)(pool))
#define bpfhv_mark_for_recycle(skb)	skb_mark_for_recycle(skb)
#else
#define bpfhv_release_page(pool, page)	page_pool_release_page(pool, page)
#define bpfhv_mark_for_recycle(skb)	((void)(skb))
#endif

/* Buffers of less than a page. Up to 6.6 the pool needs a flag for them. */
#if BPFHV_HAS_POOL_FRAGS
#define bpfhv_pool_alloc_frag(pool, offset, size)	page_pool_dev_alloc_frag(pool, offset, size)
#else
#define bpfhv_pool_alloc_frag(pool, offset, size)	((void)(offset), (struct page *)NULL)
#endif
#ifdef PP_FLAG_PAGE_FRAG
#define BPFHV_POOL_FRAGS	PP_FLAG_PAGE_FRAG
#else
#define BPFHV_POOL_FRAGS	0
#endif

#if !BPFHV_HAS_FRAG_FILL_PAGE
#define skb_frag_fill_page_desc(frag, page, off, size) do {		\
	__skb_frag_set_page(frag, page);				\
	skb_frag_off_set(frag, off);					\
	skb_frag_size_set(frag, size);					\
} while (0)
#endif

/* From 6.4 on, a pool is bound to the NAPI that recycles its pages. */
#if BPFHV_HAS_POOL_NAPI
#define BPFHV_POOL_NAPI(who)	.napi = (who),
#else
#define BPFHV_POOL_NAPI(who)
#endif

/* The ethtool ring callbacks take two more arguments since 5.17. */
#if BPFHV_HAS_RINGPARAM_EXTACK
#define BPFHV_RINGPARAM_MORE						\
	, struct kernel_ethtool_ringparam *kernel_ring, struct netlink_ext_ack *extack
#define BPFHV_RINGPARAM_EXTACK	extack
#else
#define BPFHV_RINGPARAM_MORE
#define BPFHV_RINGPARAM_EXTACK	((struct netlink_ext_ack *)NULL)
#endif

/* So do the coalescing callbacks since 5.15. */
#if BPFHV_HAS_COALESCE_EXTACK
#define BPFHV_COALESCE_MORE						\
	, struct kernel_ethtool_coalesce *kernel_coal, struct netlink_ext_ack *extack
#define BPFHV_COALESCE_EXTACK	extack
#else
#define BPFHV_COALESCE_MORE
#define BPFHV_COALESCE_EXTACK	((struct netlink_ext_ack *)NULL)
#endif

/* Without the weight from 6.1 on, and in RHEL 9's 5.14. */
#if BPFHV_HAS_NAPI_WEIGHT
#define bpfhv_napi_add(dev, napi, poll)		netif_napi_add(dev, napi, poll, NAPI_POLL_WEIGHT)
#else
#define bpfhv_napi_add(dev, napi, poll)		netif_napi_add(dev, napi, poll)
#endif
#if BPFHV_HAS_NAPI_ADD_TX
#define bpfhv_napi_add_tx(dev, napi, poll)	netif_napi_add_tx(dev, napi, poll)
#else
#define bpfhv_napi_add_tx(dev, napi, poll)	\
	netif_tx_napi_add(dev, napi, poll, NAPI_POLL_WEIGHT)
#endif

#if !BPFHV_HAS_HRTIMER_SETUP
#define bpfhv_hrtimer_setup(timer, fn) do {					\
	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);		\
	(timer)->function = (fn);						\
} while (0)
#else
#define bpfhv_hrtimer_setup(timer, fn)	\
	hrtimer_setup(timer, fn, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED)
#endif

/* dev_addr became const in 5.17. */
#if !BPFHV_HAS_ETH_HW_ADDR_SET
#define bpfhv_set_mac(dev, mac)		ether_addr_copy((dev)->dev_addr, mac)
#else
#define bpfhv_set_mac(dev, mac)		eth_hw_addr_set(dev, mac)
#endif

/* The older one, which does both, too, is deprecated since 5.17. */
#if !BPFHV_HAS_AFFINITY_AND_HINT
#define irq_set_affinity_and_hint(irq, mask)	irq_set_affinity_hint(irq, mask)
#endif

/* From 6.8 on, the kernel shows which interrupt a NAPI has. */
#if !BPFHV_HAS_NAPI_SET_IRQ
#define netif_napi_set_irq(napi, irq)	do { } while (0)
#endif

#if !BPFHV_HAS_PCIM_REQUEST_ALL
/* pcim_enable_device() manages the regions before 6.12. */
#define pcim_request_all_regions(pdev, name)	pci_request_regions(pdev, name)
#endif

#if !BPFHV_HAS_BPF_PROG_RUN
#define bpf_prog_run(prog, ctx)		BPF_PROG_RUN(prog, ctx)
#endif

#if !BPFHV_HAS_NAPI_BUILD_SKB
#define napi_build_skb(data, size)	build_skb(data, size)
#endif

/* Its name since 6.17, and in stable 6.12. Linux 7.2 warns of the name before. */
#if !BPFHV_HAS_PERCPU_WQ
#define system_percpu_wq	system_wq
#endif

/* A macro since 6.14. Before, the worker's thread runs once it is created. */
#include <linux/kthread.h>
#ifndef kthread_run_worker
#define kthread_run_worker(flags, format, ...)	kthread_create_worker(flags, format, ##__VA_ARGS__)
#endif

#endif /* BPFHV_COMPAT_H */
