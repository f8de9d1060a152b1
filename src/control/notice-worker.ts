/** The thread of a keeper that waits for datagrams of its service: Node.js cannot wait for them. */
import { parentPort, workerData } from "node:worker_threads";
import { EPOLLIN, Epoll } from "../os/epoll.ts";
import { drainEventFd } from "../os/eventfd.ts";
import { type Notice, NoticeReceiver } from "../os/notify.ts";

export interface NoticeTask {
  readonly path: string;
  /** eventfd: the keeper wants to know when everything that was sent so far has been received. */
  readonly flushFd: number;
}

export type FromNoticeWorker =
  | { readonly kind: "listening" | "flushed" }
  | ({ readonly kind: "notice" } & Notice)
  | { readonly kind: "refused"; readonly why: string };

const FOREVER = -1;
const FLUSH_TAG = 1;

function listen({ path, flushFd }: NoticeTask, tell: (message: FromNoticeWorker) => void): never {
  const receiver = new NoticeReceiver(path);
  const epoll = new Epoll(2);
  epoll.add(receiver.fd, EPOLLIN, 0);
  epoll.add(flushFd, EPOLLIN, FLUSH_TAG);
  tell({ kind: "listening" });
  for (;;) {
    const ready = epoll.wait(FOREVER);
    receiveAll(receiver, tell);
    for (let i = 0; i < ready; i++) {
      if (epoll.tag(i) !== FLUSH_TAG) continue;
      drainEventFd(flushFd);
      receiveAll(receiver, tell);
      tell({ kind: "flushed" });
    }
  }
}

function receiveAll(receiver: NoticeReceiver, tell: (message: FromNoticeWorker) => void): void {
  for (;;) {
    try {
      const notice = receiver.receive();
      if (notice === null) return;
      tell({ kind: "notice", ...notice });
    } catch (error) {
      tell({ kind: "refused", why: (error as Error).message });
    }
  }
}

listen(workerData as NoticeTask, (message) => parentPort!.postMessage(message));
