/**
 * Walks the tags of an Ethernet frame: which VLANs could a receiver take it for?
 *
 * Receivers differ. Linux removes priority tags (VID 0) one after the other and
 * delivers by the first tag that names a VLAN, a switch may look at the outermost tag
 * only, and old ones take 0x9100 for a tag. CVE-2021-27853 and CVE-2021-27861
 * (VU#855201) list filters that stacked tags and LLC/SNAP headers pass. So each tag has
 * to be allowed, and what could hide another one is refused.
 */

/** Maximum number of tags of a frame; rules may allow fewer. */
export const MAX_TAGS = 2;
const TAG = 4;
/** Of the first type, behind two addresses. */
const TYPE_AT = 12;
/**
 * LLC (3 bytes), organisation (3 bytes), type (2 bytes), behind a length (IEEE 802.2, RFC 1042).
 */
const SNAP = 8;
/** Bytes to look at: addresses, tags, the type behind them, a SNAP header. */
export const LONGEST_HEADER = TYPE_AT + MAX_TAGS * TAG + 2 + SNAP;

const PAYLOAD = 0;
const VLAN_TAG = 1;
/** Names its network in another way than by a VLAN identifier. */
const OTHER_TAG = 2;

function kindOf(type: number): number {
  switch (type) {
    case 0x8100: // 802.1Q
    case 0x88a8: // 802.1ad
    case 0x9100: // before 802.1ad, as are the next two
    case 0x9200:
    case 0x9300:
      return VLAN_TAG;
    case 0x88e7: // 802.1ah: the customer's frame lies behind it
    case 0x893f: // 802.1BR
    case 0x8926: // VN-Tag
      return OTHER_TAG;
    default:
      return PAYLOAD;
  }
}

/**
 * @param bytes holds the frame's first `length` bytes, from `frame` on
 * @param most tags that the frame may have
 * @param allowed 1 for each VLAN that may be named, 0 standing for none; null: any
 * @returns bytes up to the payload; -1 if a tag is not allowed, truncated or hidden
 */
export function headerLength(
  bytes: Uint8Array,
  frame: number,
  length: number,
  most: number,
  allowed: Uint8Array | null,
): number {
  let at = TYPE_AT;
  for (let tags = 0; at + 2 <= length; tags++, at += TAG) {
    const type = (bytes[frame + at] << 8) | bytes[frame + at + 1];
    const kind = kindOf(type);
    if (kind === PAYLOAD) {
      if (tags === 0 && allowed !== null && allowed[0] !== 1) return -1;
      return snapHidesTag(bytes, frame + at, type, length - at) ? -1 : at + 2;
    }
    if (kind === OTHER_TAG || tags === most || at + TAG > length) return -1;
    const vlan = ((bytes[frame + at + 2] & 0x0f) << 8) | bytes[frame + at + 3];
    if (allowed !== null && allowed[vlan] !== 1) return -1;
  }
  return -1;
}

/** @param at of the type or length, `left` bytes from there on */
function snapHidesTag(bytes: Uint8Array, at: number, type: number, left: number): boolean {
  // Lengths that do not fit the frame are taken by some receivers: any value below the first type.
  if (type >= 0x0600 || left < 2 + SNAP) return false;
  if (bytes[at + 2] !== 0xaa || bytes[at + 3] !== 0xaa || bytes[at + 4] !== 0x03) return false;
  return kindOf((bytes[at + 8] << 8) | bytes[at + 9]) !== PAYLOAD;
}
