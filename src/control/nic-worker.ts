/** The worker of a NIC for stock QEMU. */
import { servedNic } from "../frontends/served-nic.ts";
import { runWorker } from "./worker.ts";

await runWorker(servedNic);
