/** Builds qcow2 images byte by byte (QEMU, docs/interop/qcow2.rst), for tests. */

export interface Qcow2Parts {
  readonly version?: 2 | 3;
  readonly backing?: string;
  readonly incompatible?: number;
  readonly extensions?: readonly { readonly type: number; readonly data: Buffer }[];
}

const CLUSTER_BITS = 16;
const CLUSTER = 2 ** CLUSTER_BITS;

/**
 * Returns an empty image of 1 MiB that QEMU opens: header,
 * refcount table, refcount block, L1 table.
 */
export function qcow2Image(parts: Qcow2Parts): Buffer {
  const { version = 3, backing, incompatible = 0, extensions = [] } = parts;
  const image = Buffer.alloc(4 * CLUSTER);
  image.write("QFI\xfb", 0, "latin1");
  image.writeUInt32BE(version, 4);
  image.writeUInt32BE(CLUSTER_BITS, 20);
  image.writeBigUInt64BE(1n << 20n, 24);
  image.writeUInt32BE(1, 36);
  image.writeBigUInt64BE(BigInt(3 * CLUSTER), 40);
  image.writeBigUInt64BE(BigInt(CLUSTER), 48);
  image.writeUInt32BE(1, 56);
  if (version === 3) {
    image.writeUInt32BE(incompatible, 76);
    image.writeUInt32BE(4, 96);
    image.writeUInt32BE(104, 100);
  }
  let at = version === 3 ? 104 : 72;
  for (const { type, data } of extensions) {
    image.writeUInt32BE(type, at);
    image.writeUInt32BE(data.length, at + 4);
    data.copy(image, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  }
  if (backing !== undefined) {
    image.writeBigUInt64BE(BigInt(at + 8), 8);
    image.writeUInt32BE(backing.length, 16);
    image.write(backing, at + 8);
  }
  image.writeBigUInt64BE(BigInt(2 * CLUSTER), CLUSTER);
  for (let cluster = 0; cluster < 4; cluster++) image.writeUInt16BE(1, 2 * CLUSTER + 2 * cluster);
  return image;
}
