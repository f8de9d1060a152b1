/** What a backend counts besides packets. */
export function newCounters() {
  return {
    requests: 0,
    refused: 0,
    /** Packets that were published and not sent when transmission stopped. */
    unsentAtStop: 0,
    /** Times a new memory table lacked a registered context. */
    contextsLost: 0,
    /** Interrupts for which the VMM gave no descriptor. */
    interruptsDropped: 0,
    /** Times a request stopped the device because the machine was reset unannounced. */
    impliedStops: 0,
  };
}
