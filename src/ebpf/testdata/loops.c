/* Two programs in one section, and branches. */
typedef unsigned int u32;
typedef unsigned long long u64;

__attribute__((section("programs"))) u64 sum(u32 *context)
{
	u64 total = 0;

	for (u32 i = 0; i < 16; i++)
		if (context[i] & 1)
			total += context[i];
	return total;
}

__attribute__((section("programs"))) u64 swap(u32 *context)
{
	return __builtin_bswap32(context[0]);
}
