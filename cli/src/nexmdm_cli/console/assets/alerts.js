// What the watch has found about devices. An API that has no alerts yet answers 404, and the page says nothing of them.

import { html } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { instant } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { Table } from "/assets/table.js";
import { Badge, Page, When } from "/assets/ui.js";

const WORDS = {
  silent: "Silent",
  low_battery: "Battery low",
  unity_down: "Unity down",
  queue_growing: "Heartbeats pile up",
  version_behind: "Behind the rollout",
};

/** {items} of the newest alerts; null when the API has none to tell. */
export const useAlerts = () => usePoll("alerts?newest", newest, (data) => (data === null ? null : 10));

async function newest(signal) {
  try {
    return await call("GET", "/v1/alerts", { signal });
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

const COLUMNS = [
  {
    key: "device",
    label: "Device",
    head: true,
    value: (alert) => alert.alias,
    cell: (alert) => html`<a class="name" href="/devices/${encodeURIComponent(alert.device_id)}">${alert.alias ?? alert.device_id}</a>`,
  },
  {
    key: "condition",
    label: "Condition",
    value: (alert) => alert.condition,
    cell: (alert) => html`<${Badge} name="warn" label=${WORDS[alert.condition] ?? alert.condition.replaceAll("_", " ")} />`,
  },
  { key: "since", label: "Since", value: (alert) => alert.since, cell: (alert) => html`<${When} at=${alert.since} />` },
  { key: "notified", label: "Notified", kind: "wide", cell: (alert) => (alert.notified_at ? instant(alert.notified_at) : "not yet") },
];

export const AlertsTable = ({ alerts }) => html`
  <${Table} caption="Alerts" columns=${COLUMNS} rows=${alerts} empty="Nothing is wrong with any device."
    id=${(alert) => `${alert.device_id} ${alert.condition}`} />
`;

async function all(signal) {
  const items = [];
  for await (const page of pages("/v1/alerts", {}, signal)) items.push(...page);
  return items;
}

export function Alerts() {
  const poll = usePoll("alerts", all);
  return html`<${Page} title="Alerts" poll=${poll}>${poll.data && html`<${AlertsTable} alerts=${poll.data} />`}<//>`;
}
