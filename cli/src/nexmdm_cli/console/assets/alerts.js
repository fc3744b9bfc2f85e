// Alerts that the watch has opened. An API without alerts responds with 404, and the page then shows none.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { ALERT_TABS, conditionLabel, conditionOptions, detailed, SEVERITIES, SEVERITY_TONES } from "/assets/conditions.js";
import { instant, who } from "/assets/format.js";
import { Older, useList } from "/assets/lists.js";
import { usePoll } from "/assets/poll.js";
import { setQuery } from "/assets/router.js";
import { Table } from "/assets/table.js";
import { Badge, Dialog, Field, Form, Page, Tabs, When } from "/assets/ui.js";

/** {items, next_cursor} of the newest open alerts, of one device or of all; null if the API does not have alerts. */
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
    const page = await call("GET", `/v1/alerts?${query}`, { signal });
    // A pending alert has not lasted as long as its rule requires, and is not shown yet.
    return { ...page, items: page.items.filter((alert) => alert.state !== "pending") };
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

/** The number of open alerts that are not muted, for the navigation. */
export function alertsTally({ items, next_cursor: more }) {
  const loud = items.filter((alert) => !alert.muted).length;
  return loud ? ` (${loud}${more ? "+" : ""})` : "";
}

/** A badge for an alert: its condition in the colour of its severity, or whether it is recovered, pending or muted. */
const Condition = ({ alert }) => html`
  <span class="state">
    <${Badge} name=${alert.recovered_at ? "over" : (SEVERITY_TONES[alert.severity] ?? "warn")} label=${conditionLabel(alert.condition)} />
    ${alert.state === "pending" && html`<${Badge} name="over" label="pending" />`}
    ${alert.muted && html`<${Badge} name="over" label="muted" />`}
    <span class="muted">${detailed(alert)}</span>
  </span>
`;

const Acknowledged = ({ alert }) => alert.acked_at && html`
  <span>
    by ${who(alert.acked_by)} <${When} at=${alert.acked_at} />
    ${alert.ack_note && html`<br /><q>${alert.ack_note}</q>`}
  </span>
`;

const DEVICE = {
  key: "device",
  label: "Device",
  head: true,
  cell: (alert) => html`
    <a class="name" href="/devices/${encodeURIComponent(alert.device_id)}">${alert.alias ?? alert.device_id}</a>
  `,
};
const CONDITION = { key: "condition", label: "Condition", cell: (alert) => html`<${Condition} alert=${alert} />` };
const SEVERITY = { key: "severity", label: "Severity", kind: "wide", cell: (alert) => alert.severity };
const HELD = { ...CONDITION, cell: (alert) => html`
  <${Condition} alert=${alert} />
  <div class="slim muted">since <${When} at=${alert.since} /></div>
` };
const SINCE = { key: "since", label: "Since", cell: (alert) => html`<${When} at=${alert.since} />` };
const NOTIFIED = {
  key: "notified",
  label: "Notified",
  kind: "wide",
  cell: (alert) => (alert.notified_at ? instant(alert.notified_at) : alert.muted ? "muted" : "not yet"),
};
const RECOVERED = { key: "recovered", label: "Recovered", cell: (alert) => html`<${When} at=${alert.recovered_at} />` };
const acknowledgement = (onAsk) => ({
  key: "ack",
  label: "Acknowledged",
  cell: (alert) => html`
    <${Acknowledged} alert=${alert} />
    ${onAsk && alert.state === "open" && html`
      <button type="button" class="small" aria-label="${alert.acked_at ? "Edit the note of" : "Acknowledge"} ${alert.alias}, ${conditionLabel(alert.condition)}"
        onClick=${() => onAsk(alert)}>${alert.acked_at ? "Edit note" : "Acknowledge"}</button>
    `}
  `,
});

const table = (alerts, columns, empty = "There are no open alerts.") => html`
  <${Table} caption="Alerts" columns=${columns} rows=${alerts} empty=${empty}
    id=${(alert) => alert.alert_id ?? `${alert.device_id} ${alert.condition}`} />
`;

export const AlertsTable = ({ alerts }) => table(alerts, [DEVICE, CONDITION, SINCE, NOTIFIED]);

export const DeviceAlerts = ({ alerts }) =>
  alerts.map((alert) => html`
  <span class="state"><${Condition} alert=${alert} /> since <${When} at=${alert.since} /> <${Acknowledged} alert=${alert} /></span>
`);

export function Alerts({ query }) {
  const over = query.get("show") === "recovered";
  const asked = { open: !over, condition: query.get("condition"), severity: query.get("severity") };
  const list = useList("/v1/alerts", asked);
  const [acked, setAcked] = useState(null);
  const done = () => {
    setAcked(null);
    list.refresh();
  };
  const columns = [DEVICE, HELD, SEVERITY, { ...SINCE, kind: "wide" }, NOTIFIED, ...(over ? [RECOVERED] : []), acknowledgement(over ? null : setAcked)];
  const change = (name) => (event) => setQuery({ [name]: event.target.value });
  const some = asked.condition || asked.severity;
  return html`
    <${Page} title="Alerts" poll=${list}>
      <${Tabs} label="Alerts, rules and mutes" tabs=${ALERT_TABS} />
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <label>
          Show
          <select onChange=${change("show")}>
            <option value="" selected=${!over}>Open</option>
            <option value="recovered" selected=${over}>Recovered</option>
          </select>
        </label>
        <label>
          Condition
          <select onChange=${change("condition")}>${conditionOptions(asked.condition, "All conditions")}</select>
        </label>
        <label>
          Severity
          <select onChange=${change("severity")}>
            <option value="">All severities</option>
            ${SEVERITIES.map((name) => html`<option value=${name} selected=${name === asked.severity}>${name}</option>`)}
          </select>
        </label>
      </form>
      ${list.data && table(list.data.items, columns, some || over ? "No alert matches." : undefined)}
      <${Older} list=${list} />
      ${acked && html`<${Acknowledge} alert=${acked} onDone=${done} onClose=${() => setAcked(null)} />`}
    <//>
  `;
}

function Acknowledge({ alert, onDone, onClose }) {
  const submit = async (form) => {
    await call("POST", `/v1/alerts/${alert.alert_id}/ack`, { body: { note: form.get("note") || null } });
    onDone();
  };
  return html`
    <${Dialog} title="Acknowledge the alert" onClose=${onClose}>
      <p><strong>${alert.alias}</strong>: ${conditionLabel(alert.condition)}. It stays open until the condition is over.</p>
      <${Form} submit="Acknowledge" onSubmit=${submit} onCancel=${onClose}>
        <${Field} label="Note" name="note" type="textarea" maxlength="1000" defaultValue=${alert.ack_note ?? ""}
          hint="What you found, or who is working on it." />
      <//>
    <//>
  `;
}
