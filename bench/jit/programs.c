/*
 * Programs for bench/jit.ts, compiled to eBPF and to machine code by the same compiler with the
 * same optimisation. Each takes the address of 8192 bytes and returns its result.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* Distinct from the section's name: clang would take both for one symbol. */
#define PROGRAM(name) __attribute__((section(#name), used)) u64 run_##name(u8 *m)

/* short: what a datapath does per packet */

PROGRAM(checksum20)
{
	u16 *w = (u16 *)m;
	u32 sum = 0;

	for (int i = 0; i < 10; i++)
		sum += w[i];
	sum = (sum >> 16) + (sum & 0xffff);
	return (u16)~(sum + (sum >> 16));
}

PROGRAM(classify)
{
	u16 type = (u16)(m[12] << 8 | m[13]);
	u32 hash = 0;

	if (type == 0x8100)
		return 1;
	for (int i = 0; i < 4; i++)
		hash = (hash ^ ((u32 *)(m + 16))[i]) * 0x9e3779b1u;
	if (m[23] == 17 || m[23] == 6)
		hash ^= *(u32 *)(m + 34);
	hash ^= hash >> 15;
	return hash & 7;
}

struct descriptor {
	u64 cookie, address;
	u32 length, flags;
};

struct ring {
	u32 produced, consumed, kick, count;
	struct descriptor in[4];
	struct descriptor slots[256];
};

PROGRAM(publish)
{
	volatile struct ring *r = (volatile struct ring *)m;
	u32 at = r->produced;

	for (int i = 0; i < 4; i++, at++) {
		volatile struct descriptor *to = &r->slots[at & 255];

		to->cookie = r->in[i].cookie;
		to->address = r->in[i].address;
		to->length = r->in[i].length;
		to->flags = i == 3;
	}
	r->produced = at;
	r->kick = at - r->consumed > 16;
	return 0;
}

/* long loops */

PROGRAM(fnv4096)
{
	u64 hash = 0xcbf29ce484222325ull;

	for (int i = 0; i < 4096; i++)
		hash = (hash ^ m[i]) * 0x100000001b3ull;
	return hash;
}

PROGRAM(xorshift)
{
	u64 x = *(u64 *)m | 1;

	for (int i = 0; i < 10000; i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
	}
	return x * 0x2545f4914f6cdd1dull;
}

PROGRAM(checksum4096)
{
	u32 *w = (u32 *)m;
	u64 sum = 0;

	for (int i = 0; i < 1024; i++)
		sum += w[i];
	sum = (sum >> 32) + (sum & 0xffffffff);
	return (u32)(sum + (sum >> 32));
}

PROGRAM(sieve)
{
	u32 count = 0;

	for (u32 i = 2; i < 4096; i++) {
		m[4096 + i] = 0;
		/* prevents a call of memset, which eBPF lacks */
		__asm__ volatile("" ::: "memory");
	}
	for (u32 i = 2; i < 4096; i++) {
		if (m[4096 + i])
			continue;
		count++;
		for (u32 k = 2 * i; k < 4096; k += i)
			m[4096 + k] = 1;
	}
	return count;
}

#ifndef __bpf__
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
	const char *name;
	u64 (*run)(u8 *);
} programs[] = {
#define ENTRY(name) { #name, run_##name }
	ENTRY(checksum20), ENTRY(classify), ENTRY(publish), ENTRY(fnv4096),
	ENTRY(xorshift), ENTRY(checksum4096), ENTRY(sieve),
};

#define SLICES 5

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return x < y ? -1 : x > y;
}

/*
 * native NAME RUNS: prints nanoseconds for this many runs (the median of several measurements), and
 * the low half of the last result.
 */
int main(int argc, char **argv)
{
	static u8 m[8192] __attribute__((aligned(64)));
	long long times[SLICES + 1];
	struct timespec a, b;
	u64 (*volatile run)(u8 *) = 0;
	u64 result = 0;

	for (unsigned long i = 0; i < sizeof programs / sizeof *programs; i++)
		if (argc == 3 && !strcmp(argv[1], programs[i].name))
			run = programs[i].run;
	if (!run)
		return 2;
	for (int i = 0; i < 8192; i++)
		m[i] = (u8)(i * 31 + 7);
	/* The first measurement is discarded: the process has just started. */
	for (int slice = 0; slice <= SLICES; slice++) {
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (long n = atol(argv[2]); n > 0; n--)
			result = run(m);
		clock_gettime(CLOCK_MONOTONIC, &b);
		times[slice] = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
	}
	qsort(times + 1, SLICES, sizeof *times, compare);
	printf("%lld %d\n", times[1 + SLICES / 2], (int)result);
	return 0;
}
#endif
