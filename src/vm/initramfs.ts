/**
 * Writes cpio archives in the "newc" form that Linux unpacks at boot
 * (Documentation/driver-api/early-userspace).
 */

export interface InitramfsFile {
  /** Absolute path in the guest. */
  readonly path: string;
  readonly content: Uint8Array;
  readonly executable?: boolean;
}

const DIRECTORY = 0o040755;
const FILE = 0o100644;
const PROGRAM = 0o100755;

/**
 * Returns an archive that may follow another, uncompressed one in
 * the same image. Includes parent folders.
 */
export function packInitramfs(files: readonly InitramfsFile[]): Buffer {
  const folders = new Set<string>();
  for (const { path } of files) {
    const parts = path.split("/").slice(1, -1);
    for (let i = 1; i <= parts.length; i++) folders.add(parts.slice(0, i).join("/"));
  }
  const empty = Buffer.alloc(0);
  let inode = 0xb0f00000; // distinct from those of the archive before it
  const chunks = [...folders].map((name) => entry(name, inode++, DIRECTORY, empty));
  for (const { path, content, executable } of files) {
    chunks.push(entry(path.slice(1), inode++, executable ? PROGRAM : FILE, content));
  }
  chunks.push(entry("TRAILER!!!", 0, 0, empty));
  return Buffer.concat(chunks);
}

function entry(name: string, inode: number, mode: number, content: Uint8Array): Buffer {
  const bytes = Buffer.from(`${name}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, bytes.length, 0];
  const header = Buffer.from(
    `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`,
  );
  return Buffer.concat([
    header,
    bytes,
    padding(header.length + bytes.length),
    content,
    padding(content.length),
  ]);
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}
