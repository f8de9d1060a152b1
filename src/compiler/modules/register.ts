/**
 * `bpfhv/register`: Node.js loads TypeScript modules, on every supported version.
 *
 *     node --import bpfhv/register --test my-nic.test.ts
 */
import { register } from "node:module";

/** The loader hooks. */
export const hooks: string = new URL("./hooks.js", import.meta.url).href;

register(hooks);
