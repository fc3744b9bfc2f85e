// A device's heartbeats over the retention period: all are loaded once, then only newer ones. Heartbeats that a device
// queued while it was offline are older, and appear when the page is reloaded.

import { call, pages } from "/assets/api.js";
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

export const QUARTER_DAYS = 90;

/** The hours of the last 90 days, oldest first: {ts, reports, battery_pct: {min, max, last}, ...}. */
export async function hours(id, signal) {
  const from = new Date(Date.now() - QUARTER_DAYS * 86_400_000).toISOString();
  const query = new URLSearchParams({ from, step: "hour" });
  const { points } = await call("GET", `/v1/devices/${encodeURIComponent(id)}/history?${query}`, { signal });
  return points.map((point) => ({ ...point, ts: point.at }));
}

/**
 * [seconds, values] for a chart, with a gap where the device was silent for long. For hours, whose values are
 * {min, max, last}, it is [seconds, min, max, last].
 */
export function series(rows, name) {
  const times = [];
  const lines = rows.some((row) => row[name] !== null && typeof row[name] === "object") ? [[], [], []] : [[]];
  const gap = 3 * usualStep(rows);
  const add = (at, values) => {
    times.push(at);
    lines.forEach((line, n) => line.push(values[n] ?? null));
  };
  let last = null;
  for (const row of rows) {
    const at = Date.parse(row.ts) / 1000;
    if (last !== null && at - last > gap) add((at + last) / 2, []);
    const value = row[name];
    add(at, lines.length > 1 ? [value?.min, value?.max, value?.last] : [value]);
    last = at;
  }
  return [times, ...lines];
}

function usualStep(rows) {
  const steps = rows.slice(1).map((row, n) => (Date.parse(row.ts) - Date.parse(rows[n].ts)) / 1000);
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] || 600;
}
