// A device's heartbeats over the retained time: fetched once, then only what came since. What a device queued while it
// was offline and sends later is older than that: it is there when the page is loaded anew.

import { pages } from "/assets/api.js";
import { known } from "/assets/poll.js";

/** {items, complete}, oldest first. */
export async function heartbeats(id, signal, show) {
  const before = known(`heartbeats ${id}`)?.items ?? [];
  const newest = before.at(-1)?.bucket;
  const fresh = [];
  for await (const page of pages(`/v1/devices/${encodeURIComponent(id)}/heartbeats`, {}, signal)) {
    const unseen = newest ? page.filter((row) => row.bucket > newest) : page;
    fresh.push(...unseen);
    if (newest && unseen.length < page.length) break;
    if (!newest) show({ items: fresh.toReversed(), complete: false });
  }
  return { items: [...before, ...fresh.toReversed()], complete: true };
}

/** [seconds, values] for a chart, with a hole where the device was silent for long. */
export function series(rows, name) {
  const times = [],
    values = [];
  const gap = 3 * usualStep(rows);
  let last = null;
  for (const row of rows) {
    const at = Date.parse(row.ts) / 1000;
    if (last !== null && at - last > gap) {
      times.push((at + last) / 2);
      values.push(null);
    }
    times.push(at);
    values.push(row[name] ?? null);
    last = at;
  }
  return [times, values];
}

function usualStep(rows) {
  const steps = rows.slice(1).map((row, n) => (Date.parse(row.ts) - Date.parse(rows[n].ts)) / 1000);
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] || 600;
}
