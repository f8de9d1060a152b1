// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Instructions of HELPERFREE programs.
 *
 * The kernel's verifier proves what a program accesses, for root: it also accepts calls, which
 * reach into the kernel, wide loads that stand for maps, BTF objects or kernel symbols of the
 * loading task, and may_goto, with which a program runs for as long as the kernel's limit allows:
 * for seconds, in softirq, for each packet. Later kernels will accept more. So this is a list of
 * what is allowed, with each field that gives an instruction its meaning: RFC 9669 without calls.
 *
 * Registers, jump targets and alignment are the verifier's business.
 */
#include "bpfhv.h"

#if BPFHV_HAS_KERN_SYS_BPF

#ifndef BPF_MEMSX	/* new in 6.6: a load with sign extension */
#define BPF_MEMSX	0x80
#endif

static bool bpfhv_pure_wide(const struct bpf_insn *insns, u32 len, u32 i)
{
	const struct bpf_insn *next = &insns[i + 1];

	return insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && !insns[i].src_reg &&
	       !insns[i].off && i + 1 < len && !next->code && !next->dst_reg &&
	       !next->src_reg && !next->off;
}

/* With a register as the second operand, the immediate is not used, and vice versa. */
static bool bpfhv_pure_operand(const struct bpf_insn *insn)
{
	return BPF_SRC(insn->code) == BPF_X ? !insn->imm : !insn->src_reg;
}

static bool bpfhv_pure_alu(const struct bpf_insn *insn)
{
	bool wide = BPF_CLASS(insn->code) == BPF_ALU64, x = BPF_SRC(insn->code) == BPF_X;

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
	case BPF_SUB:
	case BPF_MUL:
	case BPF_OR:
	case BPF_AND:
	case BPF_LSH:
	case BPF_RSH:
	case BPF_XOR:
	case BPF_ARSH:
		return bpfhv_pure_operand(insn) && !insn->off;
	case BPF_DIV:
	case BPF_MOD:
		/* 1: signed */
		return bpfhv_pure_operand(insn) && (insn->off == 0 || insn->off == 1);
	case BPF_NEG:
		return !x && !insn->src_reg && !insn->off && !insn->imm;
	case BPF_MOV:
		/* Sign extension. Other offsets cast between address spaces. */
		return bpfhv_pure_operand(insn) &&
		       (!insn->off || (x && (insn->off == 8 || insn->off == 16 ||
					     (wide && insn->off == 32))));
	case BPF_END:
		return !(wide && x) && !insn->src_reg && !insn->off &&
		       (insn->imm == 16 || insn->imm == 32 || insn->imm == 64);
	}
	return false;
}

static bool bpfhv_pure_atomic(const struct bpf_insn *insn)
{
	if (BPF_SIZE(insn->code) != BPF_W && BPF_SIZE(insn->code) != BPF_DW)
		return false;
	switch (insn->imm) {
	case BPF_ADD:
	case BPF_ADD | BPF_FETCH:
	case BPF_AND:
	case BPF_AND | BPF_FETCH:
	case BPF_OR:
	case BPF_OR | BPF_FETCH:
	case BPF_XOR:
	case BPF_XOR | BPF_FETCH:
	case BPF_XCHG:
	case BPF_CMPXCHG:
		return true;
	}
	return false;
}

static bool bpfhv_pure_memory(const struct bpf_insn *insn)
{
	u8 mode = BPF_MODE(insn->code);

	switch (BPF_CLASS(insn->code)) {
	case BPF_LDX:
		return !insn->imm && (mode == BPF_MEM || (mode == BPF_MEMSX &&
						     BPF_SIZE(insn->code) != BPF_DW));
	case BPF_ST:
		return !insn->src_reg && mode == BPF_MEM;
	case BPF_STX:
		return mode == BPF_MEM ? !insn->imm : mode == BPF_ATOMIC && bpfhv_pure_atomic(insn);
	}
	return false;
}

static bool bpfhv_pure_jump(const struct bpf_insn *insn)
{
	bool wide = BPF_CLASS(insn->code) == BPF_JMP;

	if (insn->code == (BPF_JMP | BPF_EXIT))
		return !insn->dst_reg && !insn->src_reg && !insn->off && !insn->imm;
	/* The distance is the offset, or of a long jump the immediate. */
	if (insn->code == (BPF_JMP | BPF_JA) || insn->code == (BPF_JMP32 | BPF_JA))
		return !insn->dst_reg && !insn->src_reg && !(wide ? insn->imm : insn->off);
	switch (BPF_OP(insn->code)) {
	case BPF_JEQ:
	case BPF_JGT:
	case BPF_JGE:
	case BPF_JSET:
	case BPF_JNE:
	case BPF_JSGT:
	case BPF_JSGE:
	case BPF_JLT:
	case BPF_JLE:
	case BPF_JSLT:
	case BPF_JSLE:
		return bpfhv_pure_operand(insn);
	}
	return false;
}

/* On failure *where is the index of the offending instruction. */
int bpfhv_check_pure(const struct bpfhv_code *code, u32 *where)
{
	const struct bpf_insn *insns = code->insns;
	u32 i;

	for (i = 0; i < code->len; i++) {
		bool ok;

		*where = i;
		switch (BPF_CLASS(insns[i].code)) {
		case BPF_LD:
			ok = bpfhv_pure_wide(insns, code->len, i);
			i++;
			break;
		case BPF_ALU:
		case BPF_ALU64:
			ok = bpfhv_pure_alu(&insns[i]);
			break;
		case BPF_JMP:
		case BPF_JMP32:
			ok = bpfhv_pure_jump(&insns[i]);
			break;
		default:
			ok = bpfhv_pure_memory(&insns[i]);
		}
		if (!ok)
			return -EPERM;
	}
	return 0;
}

#endif /* BPFHV_HAS_KERN_SYS_BPF */
