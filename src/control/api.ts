/** The API of one process: on the control socket of each of its NICs. */

import type { ControlSocket } from "./control-socket.ts";
import type { Events } from "./events.ts";
import {
  type HttpAnswer,
  HttpServer,
  LIMITS,
  type Limits,
  type StreamClient,
} from "./http-server.ts";
import { type ApiAnswer, answerTo, type Served } from "./routes.ts";
import type { RunningNic } from "./running-nic.ts";

export interface ApiOptions {
  readonly served: Served;
  /** The NIC beside whose socket it listens. */
  readonly own: RunningNic;
  readonly socket: ControlSocket;
  readonly limits?: Partial<Limits>;
}

/** Accepts clients. */
export function serveApi({ served, own, socket, limits = {} }: ApiOptions): HttpServer {
  const { answerMs } = { ...LIMITS, ...limits };
  return new HttpServer({
    ...{ socket, limits, upgrade: served.takeOver },
    answer: async ({ method, url, body }) =>
      toHttp(
        await inTime(answerTo({ method, url, body, own }, served), answerMs, () =>
          served.nics().some(({ isReplacing }) => isReplacing),
        ),
      ),
  });
}

function toHttp(answer: ApiAnswer): HttpAnswer {
  if (!("events" in answer)) return answer;
  return { stream: (client) => streamEvents(answer.events, client) };
}

/** Server-sent events (HTML standard, section 9.2). */
function streamEvents(events: Events, { write, ended }: StreamClient): void {
  write(":\n\n");
  const end = events.listen(({ kind, nic, data }, id) => {
    write(`event: ${kind}\nid: ${id}\ndata: ${JSON.stringify({ nic, ...data })}\n\n`);
  });
  void ended.then(end);
}

/**
 * @param isBusy the guest takes another set, which has deadlines of its own
 * @returns 503 if the NIC's worker is late; what it then answers is discarded
 */
async function inTime(
  answer: Promise<ApiAnswer>,
  ms: number,
  isBusy: () => boolean,
): Promise<ApiAnswer> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<ApiAnswer>((done) => {
    const body = { error: "the NIC's thread does not answer" };
    let wasBusy = false;
    let due = 0;
    const wait = (): void => {
      due = performance.now() + ms;
      timer = setTimeout(look, ms);
    };
    const look = (): void => {
      // It has the whole time after that; and after this thread was held up itself, by a compiler.
      const again = wasBusy || performance.now() - due > ms / 4;
      wasBusy = isBusy();
      if (wasBusy || again) wait();
      else done({ status: 503, body });
    };
    wait();
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
