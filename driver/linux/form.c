// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Static checks of unverified programs: every instruction is known, every jump lands on an
 * instruction of the program, frame accesses stay in the frame, and loops end: each back edge
 * consumes fuel, and a program without fuel fails. None of this proves that a program stays in its
 * context.
 */
#include "bpfhv.h"

/* Back edges allowed in one run. A pass over the largest batch takes a few hundred. */
#define BPFHV_FUEL		65536
/* Frame slot of the fuel counter. Programs may not access it. */
#define BPFHV_FUEL_SLOT		(-MAX_BPF_STACK)
#define BPFHV_FUEL_INSNS	6

static bool bpfhv_is_wide(const struct bpf_insn *insn)
{
	return insn->code == (BPF_LD | BPF_IMM | BPF_DW);
}

static bool bpfhv_is_jump(const struct bpf_insn *insn)
{
	u8 class = BPF_CLASS(insn->code), op = BPF_OP(insn->code);

	return (class == BPF_JMP || class == BPF_JMP32) && op != BPF_CALL && op != BPF_EXIT;
}

static bool bpfhv_is_back_edge(const struct bpf_insn *insn)
{
	return bpfhv_is_jump(insn) && insn->off < 0;
}

/* Returns true if the jump at i lands on the first slot of an instruction of the program. */
static bool bpfhv_jump_ok(const struct bpf_insn *insns, u32 len, u32 i)
{
	s64 target = (s64)i + 1 + insns[i].off;

	if (target < 0 || target >= len)
		return false;
	return !(target > 0 && bpfhv_is_wide(&insns[target - 1]));
}

static bool bpfhv_access_ok(const struct bpf_insn *insn, u8 base)
{
	static const u8 bytes[] = { 4, 2, 1, 8 };	/* BPF_W, BPF_H, BPF_B, BPF_DW */
	u8 mode = BPF_MODE(insn->code), size = bytes[BPF_SIZE(insn->code) >> 3];

	if (mode != BPF_MEM && !(mode == BPF_XADD && BPF_CLASS(insn->code) == BPF_STX && size >= 4))
		return false;
	return base != BPF_REG_10 ||
	       (insn->off >= BPFHV_FUEL_SLOT + 8 && insn->off + size <= 0);
}

static bool bpfhv_alu_ok(const struct bpf_insn *insn)
{
	u8 op = BPF_OP(insn->code);
	u32 width = BPF_CLASS(insn->code) == BPF_ALU64 ? 64 : 32;

	if (insn->dst_reg == BPF_REG_10 || op > BPF_END)
		return false;
	if (BPF_SRC(insn->code) == BPF_X)
		return true;
	if (op == BPF_DIV || op == BPF_MOD)
		return insn->imm;
	if (op == BPF_LSH || op == BPF_RSH || op == BPF_ARSH)
		return (u32)insn->imm < width;
	return true;
}

static int bpfhv_check_insn(const struct bpf_insn *insns, u32 len, u32 i)
{
	const struct bpf_insn *insn = &insns[i];
	u8 class = BPF_CLASS(insn->code), op = BPF_OP(insn->code);
	bool ok = false;

	if (insn->dst_reg > BPF_REG_10 || insn->src_reg > BPF_REG_10)
		return -EINVAL;
	switch (class) {
	case BPF_LD:
		ok = bpfhv_is_wide(insn) && !insn->src_reg && insn->dst_reg != BPF_REG_10 &&
		     i + 1 < len && !insns[i + 1].code;
		break;
	case BPF_ALU:
	case BPF_ALU64:
		ok = bpfhv_alu_ok(insn);
		break;
	case BPF_LDX:
		ok = insn->dst_reg != BPF_REG_10 && bpfhv_access_ok(insn, insn->src_reg);
		break;
	case BPF_ST:
	case BPF_STX:
		ok = bpfhv_access_ok(insn, insn->dst_reg);
		break;
	case BPF_JMP:
		if (op == BPF_CALL)	/* the number is checked by bpfhv_resolve_call() */
			return insn->src_reg || insn->dst_reg || insn->off ? -EINVAL : 0;
		if (op == BPF_EXIT)
			return 0;
		fallthrough;
	case BPF_JMP32:
		/* Long jumps (32-bit distance in the immediate) are not part of version 1. */
		ok = op <= BPF_JSLE && !(class == BPF_JMP32 && op == BPF_JA) &&
		     bpfhv_jump_ok(insns, len, i);
		break;
	}
	return ok ? 0 : -EINVAL;
}

/* On failure *where is the index of the offending instruction. */
int bpfhv_check_form(const struct bpfhv_code *code, u32 *where)
{
	const struct bpf_insn *insns = code->insns, *last = &insns[code->len - 1];
	u32 i;
	int err;

	for (i = 0; i < code->len; i++) {
		*where = i;
		err = bpfhv_check_insn(insns, code->len, i);
		if (err)
			return err;
		if (bpfhv_is_wide(&insns[i]))
			i++;
	}
	/* The last instruction must not fall through. */
	return last->code == (BPF_JMP | BPF_EXIT) || last->code == (BPF_JMP | BPF_JA) ? 0 : -EINVAL;
}

/* Returns the program's length after fuel was added to its back edges. */
u32 bpfhv_fuelled_len(const struct bpfhv_code *code)
{
	u32 i, back = 0;

	for (i = 0; i < code->len; i++) {
		back += bpfhv_is_back_edge(&code->insns[i]);
		if (bpfhv_is_wide(&code->insns[i]))
			i++;
	}
	return back ? code->len + 1 + back * BPFHV_FUEL_INSNS : code->len;
}

/*
 * Writes one instruction, preceded by the fuel check if it is a back edge. Returns the number
 * written.
 */
static u32 bpfhv_emit(struct bpf_insn *to, const struct bpf_insn *insn)
{
	const struct bpf_insn burn[BPFHV_FUEL_INSNS] = {
		BPF_LDX_MEM(BPF_DW, BPF_REG_AX, BPF_REG_10, BPFHV_FUEL_SLOT),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_AX, -1),
		BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_AX, BPFHV_FUEL_SLOT),
		BPF_JMP_IMM(BPF_JNE, BPF_REG_AX, 0, 2),
		BPF_MOV64_IMM(BPF_REG_0, -ELOOP),
		BPF_EXIT_INSN(),
	};
	u32 n = 0;

	if (bpfhv_is_back_edge(insn)) {
		memcpy(to, burn, sizeof(burn));
		n = BPFHV_FUEL_INSNS;
	}
	to[n] = *insn;
	return n + 1;
}

/*
 * Copies a checked program to `to`, which has room for bpfhv_fuelled_len() instructions; at[]
 * receives the new index of each instruction. A jump to a back edge lands on its fuel check.
 */
int bpfhv_add_fuel(const struct bpfhv_code *code, struct bpf_insn *to, u32 *at)
{
	const struct bpf_insn *insns = code->insns;
	u32 i, n = 0;
	s64 distance;

	if (bpfhv_fuelled_len(code) == code->len) {
		memcpy(to, insns, code->len * sizeof(*to));
		return 0;
	}
	to[n++] = BPF_ST_MEM(BPF_DW, BPF_REG_10, BPFHV_FUEL_SLOT, BPFHV_FUEL);
	for (i = 0; i < code->len; i++) {
		at[i] = n;
		n += bpfhv_emit(&to[n], &insns[i]);
		if (bpfhv_is_wide(&insns[i])) {
			at[++i] = n;
			to[n++] = insns[i];
		}
	}
	for (i = 0; i < code->len; i++) {
		if (bpfhv_is_wide(&insns[i])) {
			i++;
			continue;
		}
		if (!bpfhv_is_jump(&insns[i]))
			continue;
		n = at[i] + (bpfhv_is_back_edge(&insns[i]) ? BPFHV_FUEL_INSNS : 0);
		distance = (s64)at[i + 1 + insns[i].off] - n - 1;
		if (distance != (s16)distance)
			return -E2BIG;
		to[n].off = distance;
	}
	return 0;
}
