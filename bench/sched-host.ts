/** What the host gave this process's threads: Linux's /proc/PID/task/TID/schedstat, in ns - time on a processor, and time spent ready to run and waiting for one. */
import { readdirSync, readFileSync } from "node:fs";

/** Summed over all threads that live now. @param pid this process, or another */
export function tasks(pid: number | "self" = "self"): { ranNs: number; waitedNs: number } {
  let ranNs = 0, waitedNs = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const [ran, waited] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "utf8").split(" ").map(Number);
      ranNs += ran ?? 0;
      waitedNs += waited ?? 0;
    } catch { /* it ended */ }
  }
  return { ranNs, waitedNs };
}
