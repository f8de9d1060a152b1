/** The first message of a client: the version of the protocol, and its abilities as JSON. */
import { VERSION } from "./protocol.ts";

/** @returns true if the `payload` bytes from `at` on are a request of version 0 */
export function isVersionRequest(
  data: DataView,
  bytes: Uint8Array,
  at: number,
  payload: number,
): boolean {
  if (payload < VERSION.SIZE || data.getUint16(at + VERSION.major, true) !== 0) return false;
  return payload === VERSION.SIZE || isJsonObject(bytes.subarray(at + VERSION.json, at + payload));
}

/** @returns true for a JSON object that ends in the only NUL byte */
function isJsonObject(bytes: Uint8Array): boolean {
  if (bytes.indexOf(0) !== bytes.length - 1) return false;
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes.subarray(0, -1)).toString());
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
