/* Two programs that share functions of .text, one of which calls another. */
typedef unsigned long long u64;

#define PROGRAM(name) __attribute__((section(name), used))
#define FUNCTION static __attribute__((noinline))

FUNCTION u64 mix(u64 a, u64 b)
{
	return a * 31 + (b ^ (a >> 7));
}

FUNCTION u64 both_ways(u64 a, u64 b)
{
	return mix(a, b) + mix(b, a);
}

PROGRAM("txp") u64 publish(u64 *context)
{
	return both_ways(context[0], context[1]);
}

PROGRAM("rxc") u64 collect(u64 *context)
{
	return mix(context[1], 3);
}
