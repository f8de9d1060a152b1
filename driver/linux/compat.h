/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Differences between kernel versions, all of them here. */
#ifndef BPFHV_COMPAT_H
#define BPFHV_COMPAT_H

#include <linux/version.h>

/*
 * kern_sys_bpf() and bpf_map_get() are exported from 6.0 on: there the kernel's
 * own verifier judges what the host ships.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 0, 0)
#define BPFHV_HAVE_KERN_SYS_BPF 1
/* Exported for light skeletons, which declare it themselves; no header does. */
union bpf_attr;
int kern_sys_bpf(int cmd, union bpf_attr *attr, unsigned int size);
#endif

/* The namespace of those exports; its argument became a string in 6.13. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define BPFHV_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS("BPF_INTERNAL")
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define BPFHV_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS(BPF_INTERNAL)
#else
#define BPFHV_IMPORT_BPF_INTERNAL struct bpfhv_no_namespace
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#include <net/page_pool/helpers.h>
#else
#include <net/page_pool.h>
#endif

#endif /* BPFHV_COMPAT_H */
