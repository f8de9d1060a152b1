/*
 * Attaches one of a few XDP programs to an interface, in the driver:
 *
 *     xdp_program DEV pass|drop|room|reflect|bounce|redirect:DEV|off [frags] [skb]
 *
 * The programs are written as instructions, so that neither a compiler for BPF nor a loader's
 * libraries are needed in the guest. On failure it prints what the driver said.
 *
 *   room      checks that 200 bytes of headroom and 16 of metadata are there, and passes
 *   reflect   answers pings itself (XDP_TX), and passes all else
 *   bounce    swaps the addresses of every frame and sends it back
 */
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(op, to, from, offset, value)                                                  \
	{ .code = (op), .dst_reg = (to), .src_reg = (from), .off = (offset), .imm = (value) }
#define MOV(to, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value)
#define COPY(to, from) INSN(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0)
#define ADD(to, value) INSN(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value)
#define ADD_REG(to, from) INSN(BPF_ALU64 | BPF_ADD | BPF_X, to, from, 0, 0)
#define SHIFT(to, bits) INSN(BPF_ALU64 | BPF_RSH | BPF_K, to, 0, 0, bits)
#define LOAD(size, to, from, offset) INSN(BPF_LDX | BPF_MEM | (size), to, from, offset, 0)
#define STORE(size, to, from, offset) INSN(BPF_STX | BPF_MEM | (size), to, from, offset, 0)
#define IF_ABOVE(a, b, skip) INSN(BPF_JMP | BPF_JGT | BPF_X, a, b, skip, 0)
#define UNLESS(a, value, skip) INSN(BPF_JMP | BPF_JNE | BPF_K, a, 0, skip, value)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define RETURN(action) MOV(0, action), EXIT()

/* r2: the packet; ends the program with XDP_PASS if it is shorter. Four instructions and two. */
#define PACKET(bytes)                                                                      \
	LOAD(BPF_W, 2, 1, 0), LOAD(BPF_W, 3, 1, 4), COPY(4, 2), ADD(4, bytes),              \
	INSN(BPF_JMP | BPF_JLE | BPF_X, 4, 3, 2, 0), RETURN(XDP_PASS)
#define SWAP(size, a, b)                                                                   \
	LOAD(size, 4, 2, a), LOAD(size, 5, 2, b), STORE(size, 2, 4, b), STORE(size, 2, 5, a)
#define SWAP_MACS() SWAP(BPF_H, 0, 6), SWAP(BPF_H, 2, 8), SWAP(BPF_H, 4, 10)
#define PASS_UNLESS(size, offset, value)                                                   \
	LOAD(size, 4, 2, offset), INSN(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2, value),          \
	RETURN(XDP_PASS)

static struct bpf_insn pass[] = { RETURN(XDP_PASS) };
static struct bpf_insn drop[] = { RETURN(XDP_DROP) };
static struct bpf_insn room[] = {
	COPY(6, 1),
	MOV(2, -200), CALL(BPF_FUNC_xdp_adjust_head), UNLESS(0, 0, 10),
	COPY(1, 6), MOV(2, 200), CALL(BPF_FUNC_xdp_adjust_head), UNLESS(0, 0, 6),
	COPY(1, 6), MOV(2, -16), CALL(BPF_FUNC_xdp_adjust_meta), UNLESS(0, 0, 2),
	RETURN(XDP_PASS),
	RETURN(XDP_ABORTED),
};
/* The checksum is adjusted for the type, which changes from 8 to 0 (RFC 1624). */
static struct bpf_insn reflect[] = {
	PACKET(42),
	PASS_UNLESS(BPF_H, 12, 0x0008), PASS_UNLESS(BPF_B, 23, 1), PASS_UNLESS(BPF_B, 34, 8),
	SWAP_MACS(), SWAP(BPF_H, 26, 30), SWAP(BPF_H, 28, 32),
	MOV(4, 0), STORE(BPF_B, 2, 4, 34),
	LOAD(BPF_H, 4, 2, 36), ADD(4, 8), COPY(5, 4), SHIFT(5, 16), ADD_REG(4, 5),
	STORE(BPF_H, 2, 4, 36),
	RETURN(XDP_TX),
};
static struct bpf_insn bounce[] = { PACKET(14), SWAP_MACS(), RETURN(XDP_TX) };
/* bpf_redirect(interface, 0); the interface is filled in. */
static struct bpf_insn redirect[] = { MOV(1, 0), MOV(2, 0), CALL(BPF_FUNC_redirect), EXIT() };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int load(struct bpf_insn *insns, size_t bytes, int frags)
{
	static char log[1 << 16];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.insns = (unsigned long)insns,
		.insn_cnt = bytes / sizeof(*insns),
		.license = (unsigned long)"GPL",
		.prog_flags = frags ? BPF_F_XDP_HAS_FRAGS : 0,
		.log_buf = (unsigned long)log,
		.log_size = sizeof(log),
		.log_level = 1,
	};
	int fd = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

	if (fd < 0) {
		fputs(log, stderr);
		fail("load");
	}
	return fd;
}

struct request {
	struct nlmsghdr header;
	struct ifinfomsg info;
	struct nlattr xdp;
	struct nlattr fd_head;
	int fd;
	struct nlattr flags_head;
	unsigned int flags;
};

/* Prints the driver's message, which follows the header of the request in the answer. */
static void print_message(const struct nlmsgerr *answer, int left)
{
	const struct nlattr *one = (const void *)(answer + 1);

	for (left -= sizeof(*answer); left >= (int)sizeof(*one) && one->nla_len >= sizeof(*one);) {
		int step = NLA_ALIGN(one->nla_len);

		if (one->nla_type == NLMSGERR_ATTR_MSG)
			fprintf(stderr, "%s\n", (const char *)(one + 1));
		left -= step;
		one = (const void *)((const char *)one + step);
	}
}

static int attach(int interface, int fd, unsigned int flags)
{
	struct request request = {
		.header = { sizeof(request), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0 },
		.info = { .ifi_index = interface },
		.xdp = { sizeof(request) - NLMSG_LENGTH(sizeof(request.info)), IFLA_XDP | NLA_F_NESTED },
		.fd_head = { sizeof(struct nlattr) + sizeof(int), IFLA_XDP_FD },
		.fd = fd,
		.flags_head = { sizeof(struct nlattr) + sizeof(int), IFLA_XDP_FLAGS },
		.flags = flags,
	};
	int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), one = 1;
	char answer[4096];
	struct nlmsghdr *header = (void *)answer;
	struct nlmsgerr *error = NLMSG_DATA(header);

	setsockopt(s, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	if (send(s, &request, sizeof(request), 0) < 0 || recv(s, answer, sizeof(answer), 0) < 0)
		fail("netlink");
	print_message(error, header->nlmsg_len - NLMSG_HDRLEN);
	return error->error;
}

int main(int argc, char **argv)
{
	unsigned int flags = XDP_FLAGS_DRV_MODE;
	int i, frags = 0, fd = -1, err, interface;

	if (argc < 3)
		return 2;
	interface = if_nametoindex(argv[1]);
	for (i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "frags"))
			frags = 1;
		else if (!strcmp(argv[i], "skb"))
			flags = XDP_FLAGS_SKB_MODE;
	}
#define CHOOSE(name) else if (!strcmp(argv[2], #name)) fd = load(name, sizeof(name), frags)
	if (!strncmp(argv[2], "redirect:", 9)) {
		redirect[0].imm = if_nametoindex(argv[2] + 9);
		fd = load(redirect, sizeof(redirect), frags);
	}
	CHOOSE(pass);
	CHOOSE(drop);
	CHOOSE(room);
	CHOOSE(reflect);
	CHOOSE(bounce);
	else if (strcmp(argv[2], "off"))
		return 2;
	err = attach(interface, fd, flags);
	if (err)
		fprintf(stderr, "error %d\n", -err);
	return err ? 1 : 0;
}
