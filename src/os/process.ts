/** What a process can tell the kernel about itself. */
import { check } from "./errors.ts";
import * as libc from "./libc.ts";

const PR_SET_NO_NEW_PRIVS = 38;

/** From now on no program that this process starts gains rights (set-uid, file capabilities). For good. */
export function forbidNewPrivileges(): void {
  check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
}
