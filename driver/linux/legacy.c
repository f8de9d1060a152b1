// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Unverified programs: version 1 sets, which call helpers of this driver, and kernels without
 * kern_sys_bpf(). They run only with allow_unverified=1, only JITed, and only after static checks,
 * which do not prove that they stay in their context.
 */
#include <linux/dma-mapping.h>
#include <linux/slab.h>
#include <linux/virtio_net.h>

#include "bpfhv.h"

/*
 * The driver builds a packet from the buffers that rxc returned, so this helper only reports
 * success. Helpers ignore R1.
 */
BPF_CALL_1(bpfhv_rx_pkt_alloc, void *, ctx)
{
	return 0;
}

BPF_CALL_0(bpfhv_smp_mb_full)
{
	/* Full barrier: what the program pairs it with is unknown. */
	smp_mb();
	return 0;
}

BPF_CALL_2(bpfhv_print_num, const char *, text, s64, number)
{
	pr_debug("a program says %lld\n", number);
	return 0;
}

BPF_CALL_0(bpfhv_refuse)
{
	return -EOPNOTSUPP;
}

/*
 * The ring whose program runs on this CPU. R1 is not trusted to name it: the program sets it. Saved
 * and restored, because a packet can arrive while a program of another queue runs.
 */
static DEFINE_PER_CPU(struct bpfhv_ring *, bpfhv_current);

int bpfhv_run_unverified(struct bpfhv_ring *r, enum bpfhv_prog_id id)
{
	struct bpfhv_ring *before;
	int ret;

	preempt_disable();
	before = this_cpu_read(bpfhv_current);
	this_cpu_write(bpfhv_current, r);
	ret = (int)bpf_prog_run(r->prog[id], r->run_ctx);
	this_cpu_write(bpfhv_current, before);
	preempt_enable();
	return ret;
}

BPF_CALL_3(bpfhv_csum_get, void *, ctx, __le16 *, start, __le16 *, offset)
{
	const struct bpfhv_metadata *md = &this_cpu_read(bpfhv_current)->ctx->metadata;

	if (!(md->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	*start = md->csum_start;
	*offset = md->csum_offset;
	return 1;
}

BPF_CALL_3(bpfhv_csum_set, void *, ctx, u32, start, u32, offset)
{
	struct bpfhv_metadata *md = &this_cpu_read(bpfhv_current)->ctx->metadata;

	memset(md, 0, sizeof(*md));
	md->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	md->csum_start = cpu_to_le16(start);
	md->csum_offset = cpu_to_le16(offset);
	return 0;
}

BPF_CALL_2(bpfhv_header_get, void *, ctx, struct bpfhv_metadata *, out)
{
	*out = this_cpu_read(bpfhv_current)->ctx->metadata;
	return !!(out->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

BPF_CALL_2(bpfhv_header_set, void *, ctx, const struct bpfhv_metadata *, in)
{
	this_cpu_read(bpfhv_current)->ctx->metadata = *in;
	return 0;
}

typedef u64 (*bpfhv_helper_fn)(u64, u64, u64, u64, u64);

static const bpfhv_helper_fn bpfhv_helpers[BPFHV_HELPER_MAX] = {
	[BPFHV_HELPER_RX_PKT_ALLOC] = (bpfhv_helper_fn)bpfhv_rx_pkt_alloc,
	[BPFHV_HELPER_PKT_L4_CSUM_MD_GET] = (bpfhv_helper_fn)bpfhv_csum_get,
	[BPFHV_HELPER_PKT_L4_CSUM_MD_SET] = (bpfhv_helper_fn)bpfhv_csum_set,
	[BPFHV_HELPER_PKT_VIRTIO_NET_MD_GET] = (bpfhv_helper_fn)bpfhv_header_get,
	[BPFHV_HELPER_PKT_VIRTIO_NET_MD_SET] = (bpfhv_helper_fn)bpfhv_header_set,
	[BPFHV_HELPER_RX_BUF_DMA_MAP] = (bpfhv_helper_fn)bpfhv_refuse,
	[BPFHV_HELPER_RX_BUF_DMA_UNMAP] = (bpfhv_helper_fn)bpfhv_refuse,
	[BPFHV_HELPER_TX_BUF_DMA_MAP] = (bpfhv_helper_fn)bpfhv_refuse,
	[BPFHV_HELPER_TX_BUF_DMA_UNMAP] = (bpfhv_helper_fn)bpfhv_refuse,
	[BPFHV_HELPER_SMP_MB_FULL] = (bpfhv_helper_fn)bpfhv_smp_mb_full,
	[BPFHV_HELPER_PRINT_NUM] = (bpfhv_helper_fn)bpfhv_print_num,
};

/* Replaces a helper's number by its distance from the kernel's call base. */
static int bpfhv_resolve_call(struct bpf_insn *insn)
{
	u32 number = (u32)insn->imm - BPFHV_HELPER_BASE;
	s64 distance;

	if (number >= BPFHV_HELPER_MAX)
		return -EINVAL;
	distance = (s64)(unsigned long)bpfhv_helpers[number] - (s64)(unsigned long)__bpf_call_base;
	if (distance != (s32)distance)
		return -ERANGE;
	insn->imm = distance;
	return 0;
}

static int bpfhv_resolve_calls(struct bpf_insn *insns, u32 len)
{
	u32 i;
	int err;

	for (i = 0; i < len; i++) {
		if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW)) {
			i++;
			continue;
		}
		if (insns[i].code != (BPF_JMP | BPF_CALL))
			continue;
		err = bpfhv_resolve_call(&insns[i]);
		if (err)
			return err;
	}
	return 0;
}

int bpfhv_unverified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	r->ctx = dma_alloc_coherent(&bp->pdev->dev, PAGE_ALIGN(r->ctx_size), &r->ctx_dma,
				    GFP_KERNEL);
	r->run_ctx = r->ctx;
	return r->ctx ? 0 : -ENOMEM;
}

/* Adds fuel and resolves calls: the program is then ready for the JIT. */
static int bpfhv_prepare(struct bpf_prog *prog, const struct bpfhv_code *code)
{
	u32 *at = kvcalloc(code->len, sizeof(*at), GFP_KERNEL);
	int err;

	if (!at)
		return -ENOMEM;
	err = bpfhv_add_fuel(code, prog->insnsi, at);
	kvfree(at);
	return err ? err : bpfhv_resolve_calls(prog->insnsi, prog->len);
}

int bpfhv_unverified_load(struct bpfhv_ring *r, enum bpfhv_prog_id id,
			  const struct bpfhv_code *code, u32 *where)
{
	u32 len = bpfhv_fuelled_len(code);
	struct bpf_prog *prog;
	int err;

	err = bpfhv_check_form(code, where);
	if (err)
		return err;
	*where = 0;
	prog = bpf_prog_alloc(bpf_prog_size(len), 0);
	if (!prog)
		return -ENOMEM;
	prog->len = len;
	prog->gpl_compatible = 1;
	prog->aux->stack_depth = MAX_BPF_STACK;
	err = bpfhv_prepare(prog, code);
	if (!err)
		prog = bpf_prog_select_runtime(prog, &err);
	if (!err && !prog->jited)
		err = -EOPNOTSUPP;
	if (err) {
		bpf_prog_free(prog);
		return err;
	}
	r->prog[id] = prog;
	return 0;
}

void bpfhv_unverified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	unsigned int id;

	for (id = 0; id < BPFHV_PROG_MAX; id++) {
		if (r->prog[id])
			bpf_prog_free(r->prog[id]);
		r->prog[id] = NULL;
	}
	if (r->ctx)
		dma_free_coherent(&bp->pdev->dev, PAGE_ALIGN(r->ctx_size), r->ctx, r->ctx_dma);
	r->ctx = NULL;
}
