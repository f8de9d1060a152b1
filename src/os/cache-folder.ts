/** Where what can be made again is kept between runs: the same folder as the scripts use. */
import { join } from "node:path";

export function cacheFolder(): string {
  const { BPFHV_CACHE, XDG_CACHE_HOME, HOME } = process.env;
  return BPFHV_CACHE ?? join(XDG_CACHE_HOME ?? join(HOME ?? "/root", ".cache"), "bpfhv");
}
