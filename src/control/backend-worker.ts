/** The worker of a backend of the original QEMU fork. */
import { servedBackend } from "../frontends/proxy/served-backend.ts";
import { runWorker } from "./worker.ts";

await runWorker(servedBackend);
