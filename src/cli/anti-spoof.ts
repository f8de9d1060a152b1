/** The words of `--anti-spoof`. */
import { MAX_TAGS } from "../engine/frame-tags.ts";
import type { SpoofRules } from "../engine/spoof-guard.ts";
import { Usage } from "../errors.ts";
import { ConfigError, parseMac } from "../nic/config.ts";

export const ANTI_SPOOF_WORDS =
  "drop spoofed frames of the guest: mac or mac=ADDRESS is the only source allowed; " +
  "vlan=LIST such as vlan=0+10+20 (0: untagged) allows these VLANs and one tag, tags=2 two of them";
const LAST_VLAN = 4094;
const KEYS = ["mac", "vlan", "tags"];

/**
 * @param own the NIC's address, which `mac` alone stands for; null where it is not known
 * @throws Usage
 */
export function parseAntiSpoof(text: string, own: Uint8Array | null): SpoofRules {
  const words = new Map<string, string>();
  for (const word of text.split(",")) {
    const [key, value = ""] = word.split(/=(.*)/s);
    if (!KEYS.includes(key) || words.has(key)) {
      throw new Usage(`--anti-spoof ${text}: write mac or mac=ADDRESS, then vlan=LIST, tags=N`);
    }
    words.set(key, value);
  }
  const vlans = words.get("vlan");
  return {
    mac: macOf(words.get("mac"), own),
    vlans: vlans === undefined ? null : vlans.split("+").map(vlanOf),
    ...tagsOf(words.get("tags"), vlans !== undefined),
  };
}

function tagsOf(word: string | undefined, vlans: boolean): { tags?: number } {
  if (word === undefined) return {};
  if (!vlans) throw new Usage("--anti-spoof: tags: say for which VLANs, as in mac,vlan=10,tags=2");
  const tags = Number(word);
  if (/^\d+$/.test(word) && tags >= 1 && tags <= MAX_TAGS) return { tags };
  throw new Usage(`--anti-spoof: tags=${word}: use 1 to ${MAX_TAGS}, as in mac,vlan=10,tags=2`);
}

function macOf(word: string | undefined, own: Uint8Array | null): Uint8Array {
  if (word === undefined) throw new Usage("--anti-spoof: it begins with mac, as in mac,vlan=10");
  try {
    if (word !== "") return parseMac(word);
  } catch (error) {
    if (error instanceof ConfigError) throw new Usage(`--anti-spoof: ${error.message}`);
    throw error;
  }
  if (own === null) {
    throw new Usage("--anti-spoof mac: the VMM does not tell the NIC's address: use mac=ADDRESS");
  }
  return own;
}

function vlanOf(word: string): number {
  const vlan = Number(word);
  if (/^\d+$/.test(word) && vlan <= LAST_VLAN) return vlan;
  throw new Usage(`--anti-spoof: VLAN "${word}": use numbers from 0 to ${LAST_VLAN}, as in 0+10`);
}
