/* Relocations that need a loader: a global, and a function defined elsewhere. */
static volatile int limit = 7;
extern int unknown(int);

__attribute__((section("global"))) int reads_global(void)
{
	return limit;
}

__attribute__((section("elsewhere"))) int calls_elsewhere(void)
{
	return unknown(1);
}
