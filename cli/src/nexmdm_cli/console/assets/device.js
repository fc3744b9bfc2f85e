// One device: its status, its history and its commands.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { DeviceAlerts, useAlerts } from "/assets/alerts.js";
import { call } from "/assets/api.js";
import { DeviceApps } from "/assets/apps.js";
import { Chart } from "/assets/charts.js";
import { CommandsList, useCommands } from "/assets/commands.js";
import { Battery } from "/assets/devices.js";
import { LatestEvents } from "/assets/events.js";
import { ago, count, duration, instant, NONE, number, withUnit, yesNo } from "/assets/format.js";
import { heartbeats, hours, QUARTER_DAYS } from "/assets/history.js";
import { EditLabels } from "/assets/labels.js";
import { learn } from "/assets/names.js";
import { usePoll } from "/assets/poll.js";
import { go } from "/assets/router.js";
import { Labels } from "/assets/selector.js";
import { Send } from "/assets/send.js";
import { Table } from "/assets/table.js";
import { Badge, Dialog, Empty, Facts, Field, Form, Page, Section, When } from "/assets/ui.js";

export function Device({ id }) {
  const path = `/v1/devices/${encodeURIComponent(id)}`;
  const poll = usePoll(`device ${id}`, (signal) => call("GET", path, { signal }).then(learn));
  const [doing, setDoing] = useState(null);
  const device = poll.data;
  const close = () => setDoing(null);
  const renamed = () => {
    close();
    poll.refresh();
  };
  const actions = device && html`
    <button type="button" class="primary" onClick=${() => setDoing("send")}>Send command</button>
    <button type="button" onClick=${() => setDoing("labels")}>Edit labels</button>
    <button type="button" onClick=${() => setDoing("rename")}>Rename</button>
    <button type="button" class="danger" onClick=${() => setDoing("delete")}>Delete</button>
  `;
  return html`
    <${Page} title=${device?.alias ?? "Device"} poll=${poll} actions=${actions}
      back=${{ to: "/devices", label: "← Devices" }}>
      ${device && html`
        <${Status} device=${device} />
        <${History} id=${id} />
        <${DeviceApps} id=${id} />
        <${Commands} id=${id} />
        <${LatestEvents} object=${`device:${id}`} />
        <${About} device=${device} />
        ${doing === "send" && html`<${Send} devices=${[device]} onClose=${close} />`}
        ${doing === "labels" && html`
          <${EditLabels} target=${{ device_ids: [device.device_id] }} onDone=${renamed} onClose=${close} />
        `}
        ${doing === "rename" && html`<${Rename} device=${device} path=${path} onDone=${renamed} onClose=${close} />`}
        ${doing === "delete" && html`<${Delete} device=${device} path=${path} onClose=${close} />`}
      `}
    <//>
  `;
}

const Status = ({ device }) => html`
  <${Section} title="Now">
    <${DeviceAlerts} alerts=${useAlerts({ device_id: device.device_id }).data?.items ?? []} />
    <${Facts} of=${[
      ["State", html`<${Badge} name=${device.online ? "online" : "silent"} />`],
      ["Last seen", html`<${When} at=${device.last_seen_at} />`],
      ["Status", device.status ? html`<${Badge} name=${device.status} />` : NONE],
      ["Battery", html`<${Battery} device=${device} />`],
      ["Temperature", withUnit(device.temp_c, "°C", 1)],
      ["Network", device.network_type ?? NONE],
      ["Signal", withUnit(device.signal_dbm, "dBm")],
      ["Memory used", withUnit(device.ram_used_mb, "MB")],
      [
        "App",
        device.unity_running === false ? html`<${Badge} name="down" />` : device.unity_running ? "running" : NONE,
      ],
      ["Running for", duration(device.uptime_s)],
      ["Queued heartbeats", device.queue_depth ?? NONE],
      ["Reachable by FCM", yesNo(device.has_fcm_token)],
    ]} />
  <//>
`;

const Commands = ({ id }) => html`
  <${Section} title="Commands"><${CommandsList} list=${useCommands({ device_id: id }, { first: 20 })} without="device" /><//>
`;

/** [label, value] of the fields with a label in the OpenAPI document, such as the WiFi network. */
function useLabelled(device) {
  const { data } = usePoll("labelled fields", labelledFields, () => null);
  return Object.entries(data ?? {}).map(([name, { title, "x-unit": unit }]) => {
    const value = device[name];
    if (typeof value === "boolean") return [title, yesNo(value)];
    return [title, value == null ? NONE : [value, unit].filter((part) => part !== undefined).join(" ")];
  });
}

async function labelledFields(signal) {
  const document = await (await fetch("/assets/openapi.json", { signal })).json();
  const members = Object.entries(document.components.schemas.Device.properties);
  return Object.fromEntries(members.filter(([, told]) => told.title));
}

/** Signs that two phones share one identity, or one phone has two. */
const identity = (device) => [
  ...(device.token_shared_at
    ? [["Duplicate", html`two phones use this device's token, last seen <${When} at=${device.token_shared_at} />`]]
    : []),
  ...(device.hardware_id_shared_with?.length
    ? [["Duplicate", `${device.hardware_id_shared_with.join(", ")} has the same hardware id`]]
    : []),
];

/** The monitored app, and where it is set. */
const watched = (device) =>
  device.monitored_package ?? `${device.effective_monitored_package}, of its group or the setting`;

const About = ({ device }) => html`
  <${Section} title="Device">
    <${Facts} of=${[
      ...identity(device),
      ["Device id", html`<code>${device.device_id}</code>`],
      ["Labels", Object.keys(device.labels).length ? html`<${Labels} of=${device.labels} />` : NONE],
      ["Watched app", watched(device)],
      ["Model", [device.manufacturer, device.model].filter(Boolean).join(" ") || NONE],
      ["Android", device.android_version ? `${device.android_version} (SDK ${device.sdk_int ?? "?"})` : NONE],
      ["Agent", device.agent_version ?? NONE],
      ["App version", device.unity_pkg_version ?? NONE],
      ["Address", device.ip ?? NONE],
      ["Device owner", yesNo(device.is_device_owner)],
      ["Exempt from Doze", yesNo(device.doze_whitelisted)],
      ["Network validated", yesNo(device.net_validated)],
      ["Hardware id", device.hardware_id ?? NONE],
      ...useLabelled(device),
      ["Enrolled", instant(device.created_at)],
      ...(device.taken_over_at ? [["Taken over", instant(device.taken_over_at)]] : []),
    ]} />
  <//>
`;

const SERIES = [
  ["Battery", "%", "battery_pct", { min: 0, max: 100 }],
  ["Temperature", "°C", "temp_c", {}],
  ["Signal", "dBm", "signal_dbm", {}],
  ["Memory used", "MB", "ram_used_mb", {}],
];

const RANGES = { recent: "2 days", quarter: "90 days" };

function History({ id }) {
  const [range, setRange] = useState("recent");
  const [asTable, setAsTable] = useState(false);
  const Shown = range === "recent" ? Recent : Quarter;
  const buttons = html`
    <div class="row tight">
      <div class="row tight" role="group" aria-label="Time shown">
        ${Object.entries(RANGES).map(([name, label]) => html`
          <button type="button" class="small" aria-pressed=${name === range} onClick=${() => setRange(name)}>${label}</button>
        `)}
      </div>
      <button type="button" class="small" aria-pressed=${asTable} onClick=${() => setAsTable(!asTable)}>Table</button>
    </div>
  `;
  return html`<${Section} title="History" actions=${buttons}><${Shown} id=${id} asTable=${asTable} /><//>`;
}

/** All heartbeats of the retention period. */
function Recent({ id, asTable }) {
  const { data, error } = usePoll(`heartbeats ${id}`, (signal, show) => heartbeats(id, signal, show));
  const rows = data?.items ?? [];
  const about = !data
    ? "loading …"
    : rows.length
      ? `${count(rows.length, "heartbeat")} since ${instant(rows[0].ts)}${data.complete ? "" : ", loading more …"}`
      : "";
  return html`
    <p class="muted">${error ? error.message : about}</p>
    ${data?.complete && !rows.length && html`<${Empty}>No heartbeat within the retention period.<//>`}
    ${rows.length > 0 && (asTable ? html`<${HeartbeatTable} rows=${rows} />` : html`<div class="charts">${charts(rows)}</div>`)}
  `;
}

/** Hourly minimum, maximum and last values, which are kept after the heartbeats are removed. */
function Quarter({ id, asTable }) {
  const { data, error } = usePoll(`hours ${id}`, (signal) => hours(id, signal), 300);
  const about = !data
    ? "loading …"
    : data.length
      ? `${count(data.length, "hour")} since ${instant(data[0].ts)}: the last value of each, between its lowest and highest`
      : "";
  return html`
    <p class="muted">${error ? error.message : about}</p>
    ${data && !data.length && html`<${Empty}>There are no hourly values yet. They are written when heartbeats are removed, and kept for 90 days.<//>`}
    ${data?.length > 0 && (asTable ? html`<${HoursTable} rows=${data} />` : html`<div class="charts">${charts(data, HOURLY)}</div>`)}
  `;
}

const HOURLY = { at: instant, latest: "last", seconds: QUARTER_DAYS * 86_400, none: "No report in this period has this value." };

const charts = (rows, more) => SERIES.map(([title, unit, name, range]) => html`
  <${Chart} key=${name} title=${title} unit=${unit} rows=${rows} name=${name} ...${range} ...${more} />
`);

const between = (value, unit, digits) => {
  if (value?.last == null && value?.min == null) return NONE;
  const ends = [value.min, value.max].map((end) => Number(end).toFixed(digits));
  return `${ends[0] === ends[1] ? ends[0] : ends.join(" – ")} ${unit}`;
};

const HOURS = [
  { key: "at", label: "Hour", head: true, cell: (row) => instant(row.ts) },
  { key: "reports", label: "Reports", kind: "number", cell: (row) => number(row.reports) },
  { key: "battery", label: "Battery", kind: "number", cell: (row) => between(row.battery_pct, "%", 0) },
  { key: "temp", label: "Temp.", kind: "number", cell: (row) => between(row.temp_c, "°C", 1) },
  { key: "signal", label: "Signal", kind: "number wide", cell: (row) => between(row.signal_dbm, "dBm", 0) },
  { key: "memory", label: "Memory", kind: "number wide", cell: (row) => between(row.ram_used_mb, "MB", 0) },
];

function HoursTable({ rows }) {
  const [page, setPage] = useState(1);
  return html`
    <${Table} caption="Hours, newest first" columns=${HOURS} rows=${rows.toReversed()} id=${(row) => row.ts}
      page=${page} onPage=${setPage} />
  `;
}

const HEARTBEATS = [
  { key: "at", label: "Time", head: true, cell: (row) => html`<span title=${ago(row.ts)}>${instant(row.ts)}</span>` },
  { key: "status", label: "Status", kind: "wide", cell: (row) => html`<${Badge} name=${row.status} />` },
  { key: "battery", label: "Battery", kind: "number", cell: (row) => html`<${Battery} device=${row} />` },
  { key: "temp", label: "Temp.", kind: "number", cell: (row) => withUnit(row.temp_c, "°C", 1) },
  { key: "signal", label: "Signal", kind: "number", cell: (row) => withUnit(row.signal_dbm, "dBm") },
  { key: "memory", label: "Memory", kind: "number", cell: (row) => withUnit(row.ram_used_mb, "MB") },
  { key: "network", label: "Network", kind: "wide", cell: (row) => row.network_type ?? NONE },
  { key: "agent", label: "Agent", kind: "wide", cell: (row) => row.agent_version ?? NONE },
];

function HeartbeatTable({ rows }) {
  const [page, setPage] = useState(1);
  return html`
    <${Table} caption="Heartbeats, newest first" columns=${HEARTBEATS} rows=${rows.toReversed()}
      id=${(row) => row.hb_id} page=${page} onPage=${setPage} />
  `;
}

const Rename = ({ device, path, onDone, onClose }) => html`
  <${Dialog} title="Rename the device" onClose=${onClose}>
    <${Form} submit="Rename" onSubmit=${async (form) => {
      await call("PATCH", path, { body: { alias: form.get("alias") } });
      onDone();
    }}>
      <${Field} label="Alias" name="alias" required maxlength="200" defaultValue=${device.alias} />
    <//>
  <//>
`;

const Delete = ({ device, path, onClose }) => html`
  <${Dialog} title="Delete the device" onClose=${onClose}>
    <p>
      <strong>${device.alias}</strong> will be refused from now on and has to be enrolled again to come back. Its alias is
      free again; its history goes with the retention.
    </p>
    <${Form} submit="Delete" danger onCancel=${onClose} onSubmit=${async () => {
      await call("DELETE", path);
      go("/devices", { replace: true });
    }} />
  <//>
`;
