/* Helpers as the original's programs declare them: pointers with the helper's number as value. */
static int (*const helper)(void *context) = (int (*)(void *))0x4b8f0009;

__attribute__((section("rxp"))) int publish(void *context)
{
	return helper(context) + 1;
}
