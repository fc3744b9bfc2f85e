// What the watch has found about devices. An API that has no alerts answers 404, and the page says nothing of them.

import { html } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { instant } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { setQuery } from "/assets/router.js";
import { Table } from "/assets/table.js";
import { Badge, Page, When } from "/assets/ui.js";

const WORDS = {
  silent: "Silent",
  low_battery: "Battery low",
  high_temperature: "Hot",
  app_down: "App down",
  app_background: "App not in front",
  queue_growing: "Heartbeats pile up",
  agent_outdated: "Agent behind the rollout",
  duplicate_identity: "Two phones, one identity",
  clock_wrong: "Clock wrong",
};

/** {items, next_cursor} of the newest open alerts, of one device or of all; null when the API has none to tell. */
export function useAlerts(device = {}) {
  const query = new URLSearchParams({ open: true, ...device });
  return usePoll(
    `alerts?${query}`,
    (signal) => newest(query, signal),
    (data) => (data === null ? null : 10),
  );
}

async function newest(query, signal) {
  try {
    return await call("GET", `/v1/alerts?${query}`, { signal });
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
    cell: (alert) => html`
      <a class="name" href="/devices/${encodeURIComponent(alert.device_id)}">${alert.alias ?? alert.device_id}</a>
    `,
  },
  {
    key: "condition",
    label: "Condition",
    cell: (alert) => html`<${Badge} name=${alert.recovered_at ? "over" : "warn"} label=${words(alert.condition)} />`,
  },
  { key: "since", label: "Since", cell: (alert) => html`<${When} at=${alert.since} />` },
  {
    key: "notified",
    label: "Notified",
    kind: "wide",
    cell: (alert) => (alert.notified_at ? instant(alert.notified_at) : "not yet"),
  },
];
const RECOVERED = { key: "recovered", label: "Recovered", cell: (alert) => html`<${When} at=${alert.recovered_at} />` };

const words = (condition) => WORDS[condition] ?? condition.replaceAll("_", " ");

/** columns: some of the table's own, when not all. */
export const AlertsTable = ({ alerts, columns = COLUMNS }) => html`
  <${Table} caption="Alerts" columns=${columns} rows=${alerts} empty="Nothing is wrong with any device."
    id=${(alert) => alert.alert_id ?? `${alert.device_id} ${alert.condition}`} />
`;

export const DeviceAlerts = ({ alerts }) =>
  alerts.map((alert) => html`
  <span class="state"><${Badge} name="warn" label=${words(alert.condition)} /> since <${When} at=${alert.since} /></span>
`);

async function all(query, signal) {
  const items = [];
  for await (const page of pages("/v1/alerts", query, signal)) items.push(...page);
  return items;
}

export function Alerts({ query }) {
  const over = query.get("show") === "recovered";
  const poll = usePoll(`alerts page ${over}`, (signal) => all({ open: !over }, signal));
  const choose = (event) => setQuery({ show: event.target.value });
  return html`
    <${Page} title="Alerts" poll=${poll}>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <label>
          Show
          <select onChange=${choose}>
            <option value="" selected=${!over}>Open</option>
            <option value="recovered" selected=${over}>Recovered</option>
          </select>
        </label>
      </form>
      ${poll.data && html`<${AlertsTable} alerts=${poll.data} columns=${over ? [...COLUMNS, RECOVERED] : COLUMNS} />`}
    <//>
  `;
}
