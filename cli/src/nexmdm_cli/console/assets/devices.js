// All devices, searched, filtered and sorted in the page, because ten thousand of them are only a few megabytes.

import { html, useMemo, useState } from "/assets/vendor/preact-htm.module.js";
import { count, number, withUnit } from "/assets/format.js";
import { everyDevice } from "/assets/names.js";
import { usePoll } from "/assets/poll.js";
import { setQuery, useTyped } from "/assets/router.js";
import { DeleteDevices, EditLabels } from "/assets/labels.js";
import { described, GroupChoice, Labels, SelectorField } from "/assets/selector.js";
import { Send } from "/assets/send.js";
import { sorted, Table } from "/assets/table.js";
import { Badge, Page, When } from "/assets/ui.js";

// The same rules as GET /v1/fleet/summary.
const LOW_BATTERY_PCT = 15;
const SHOW = {
  online: ["Online", (device) => device.online],
  silent: ["Silent", (device) => !device.online],
  low_battery: ["Low battery", (device) => device.battery_pct !== null && device.battery_pct < LOW_BATTERY_PCT],
  unity_down: ["App down", (device) => device.unity_running === false],
  warn: ["Status: warn", (device) => device.status === "warn"],
  error: ["Status: error", (device) => device.status === "error"],
};

const COLUMNS = [
  {
    key: "alias",
    label: "Device",
    head: true,
    value: (device) => device.alias,
    cell: (device) => html`<a class="name" href="/devices/${encodeURIComponent(device.device_id)}">${device.alias}</a>`,
  },
  {
    key: "state",
    label: "State",
    value: (device) => (device.online ? "online" : "silent"),
    cell: (device) => html`<${Badge} name=${device.online ? "online" : "silent"} />`,
  },
  {
    key: "seen",
    label: "Last seen",
    value: (device) => device.last_seen_at && Date.parse(device.last_seen_at),
    cell: (device) => html`<${When} at=${device.last_seen_at} />`,
  },
  {
    key: "battery",
    label: "Battery",
    kind: "number",
    value: (device) => device.battery_pct,
    cell: (device) => html`<${Battery} device=${device} />`,
  },
  {
    key: "temperature",
    label: "Temp.",
    kind: "number wide",
    value: (device) => device.temp_c,
    cell: (device) => withUnit(device.temp_c, "°C", 1),
  },
  {
    key: "network",
    label: "Network",
    kind: "wide",
    value: (device) => device.network_type,
    cell: (device) => device.network_type ?? "–",
  },
  {
    key: "unity",
    label: "App",
    kind: "wide",
    value: (device) => device.unity_pkg_version,
    cell: (device) =>
      html`${device.unity_pkg_version ?? "–"} ${device.unity_running === false && html`<${Badge} name="down" />`}`,
  },
  {
    key: "agent",
    label: "Agent",
    kind: "wide",
    value: (device) => device.agent_version,
    cell: (device) => device.agent_version ?? "–",
  },
  {
    key: "labels",
    label: "Labels",
    kind: "wide",
    cell: (device) => html`<${Labels} of=${device.labels} />`,
  },
  {
    key: "model",
    label: "Model",
    kind: "wide",
    value: (device) => device.model,
    cell: (device) => (device.model ? `${device.manufacturer ?? ""} ${device.model}` : "–"),
  },
];

export function Battery({ device }) {
  if (device.battery_pct === null) return "–";
  const low = device.battery_pct < LOW_BATTERY_PCT;
  return html`
    <span class=${low ? "warn" : ""}>${device.battery_pct} %</span>
    ${device.plugged && html`<span title="charging"> ⚡<span class="hidden">charging</span></span>`}
  `;
}

const NO_DEVICES = html`No device is enrolled yet. <a href="/enroll">Enroll the first one</a>.`;

export function Devices({ query }) {
  // Filters that the API applies; the others are applied here.
  const asked = Object.fromEntries(["selector", "group"].flatMap((name) => (query.get(name) ? [[name, query.get(name)]] : [])));
  const key = Object.keys(asked).length ? `devices ${JSON.stringify(asked)}` : "devices";
  const poll = usePoll(key, (signal, show) => everyDevice(signal, show, asked, key));
  const [chosen, setChosen] = useState(new Set());
  const [doing, setDoing] = useState(null);
  const { items = [], complete } = poll.data ?? {};
  const filter = { text: query.get("q") ?? "", show: query.get("show") ?? "", version: query.get("version") ?? "" };
  const sort = query.get("sort") ?? "alias";
  const texts = useMemo(() => new Map(items.map((device) => [device, searchable(device)])), [items]);
  const rows = useMemo(
    () =>
      sorted(
        items.filter((device) => fits(device, filter, texts)),
        COLUMNS,
        sort,
      ),
    [items, filter.text, filter.show, filter.version, sort],
  );
  const selected = useMemo(() => items.filter((device) => chosen.has(device.device_id)), [items, chosen]);
  const select = { chosen, onChange: setChosen, id: (device) => device.device_id, name: (device) => device.alias };
  // Everything that the API's filter selects, unless devices are chosen individually or filtered here.
  const whole = !selected.length && key !== "devices" && !filter.text && !filter.show && !filter.version;
  const target = selected.length
    ? { device_ids: selected.map((device) => device.device_id) }
    : whole
      ? { filter: asked }
      : null;
  const many = selected.length ? ` to ${number(selected.length)}` : whole ? " to all of them" : "";
  // A dialog keeps the target that it was opened with: the list below it is refreshed, and devices may leave it.
  const open = (what) => () => setDoing({ what, target, devices: selected, about: whole && described(asked) });
  const close = () => setDoing(null);
  const done = () => {
    close();
    setChosen(new Set());
    poll.refresh();
  };
  const send = html`
    <button type="button" class="primary" disabled=${!target} onClick=${open("send")}>Send command${many}</button>
    <button type="button" disabled=${!target} onClick=${open("labels")}>Edit labels</button>
    <button type="button" class="danger" disabled=${!target} onClick=${open("delete")}>Delete</button>
  `;
  return html`
    <${Page} title="Devices" poll=${poll} actions=${send}>
      <${Filters} filter=${filter} items=${items} asked=${asked} problem=${poll.error} />
      <div class="row muted">
        <span role="status">${tally(rows, items, selected, poll.data && !complete)}</span>
        ${selected.length > 0 && html`<button type="button" class="small" onClick=${() => setChosen(new Set())}>Clear</button>`}
      </div>
      ${poll.data && html`
        <${Table} caption="Devices" columns=${COLUMNS} rows=${rows} id=${select.id} select=${select}
          sort=${sort} onSort=${(to) => setQuery({ sort: to, page: null })}
          page=${Number(query.get("page")) || 1} onPage=${(page) => setQuery({ page: page > 1 ? page : null })}
          empty=${items.length ? "No device matches this filter." : NO_DEVICES} />
      `}
      ${doing?.what === "send" && html`
        <${Send} devices=${doing.devices} filter=${doing.target.filter} about=${doing.about} onClose=${close} />
      `}
      ${doing?.what === "labels" && html`<${EditLabels} target=${doing.target} onDone=${done} onClose=${close} />`}
      ${doing?.what === "delete" && html`<${DeleteDevices} target=${doing.target} onDone=${done} onClose=${close} />`}
    <//>
  `;
}

function tally(rows, items, selected, loading) {
  const all = count(items.length, "device");
  const words = [rows.length === items.length ? all : `${number(rows.length)} of ${all}`];
  if (loading) words.push("loading more …");
  if (selected.length) words.push(`${number(selected.length)} selected`);
  return words.join(", ");
}

function Filters({ filter, items, asked, problem }) {
  const versions = useMemo(
    () => [...new Set(items.map((device) => device.agent_version ?? "unknown"))].sort(),
    [items],
  );
  if (filter.version && !versions.includes(filter.version)) versions.push(filter.version);
  const [selector, setSelector] = useTyped("selector", asked.selector ?? "");
  const [text, setText] = useTyped("q", filter.text);
  const change = (name) => (event) => setQuery({ [name]: event.target.value, page: null });
  return html`
    <form role="search" class="filters" onSubmit=${(event) => event.preventDefault()}>
      <${SelectorField} value=${selector} problem=${problem} onChange=${setSelector} />
      <${GroupChoice} value=${asked.group ?? ""} onChange=${(group) => setQuery({ group, page: null })} />
      <label>
        Search
        <input type="search" value=${text} placeholder="alias, model, IP address, id"
          onInput=${(event) => setText(event.target.value)} />
      </label>
      <label>
        Show
        <select value=${filter.show} onChange=${change("show")}>
          <option value="">All devices</option>
          ${Object.entries(SHOW).map(([name, [label]]) => html`
            <option value=${name} selected=${name === filter.show}>${label}</option>
          `)}
        </select>
      </label>
      <label>
        Agent
        <select value=${filter.version} onChange=${change("version")}>
          <option value="">All versions</option>
          ${versions.map((version) => html`
            <option value=${version} selected=${version === filter.version}>${version}</option>
          `)}
        </select>
      </label>
    </form>
  `;
}

const searchable = (device) =>
  [
    device.alias,
    device.device_id,
    device.manufacturer,
    device.model,
    device.ip,
    device.network_type,
    ...Object.entries(device.labels).map(([key, value]) => `${key}=${value}`),
  ]
    .join("\n")
    .toLowerCase();

function fits(device, { text, show, version }, texts) {
  if (show in SHOW && !SHOW[show][1](device)) return false;
  if (version && (device.agent_version ?? "unknown") !== version) return false;
  return !text || texts.get(device).includes(text.trim().toLowerCase());
}
