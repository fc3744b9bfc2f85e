// An overview of the fleet; every figure links to the devices that it counts.

import { html, useMemo } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { useAlerts, AlertsTable } from "/assets/alerts.js";
import { CurrentBuilds } from "/assets/builds.js";
import { Chart } from "/assets/charts.js";
import { CommandsTable } from "/assets/commands.js";
import { date, instant, number, percent, share } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { setQuery, useTyped } from "/assets/router.js";
import { GroupChoice, SelectorField } from "/assets/selector.js";
import { Empty, Page, Section } from "/assets/ui.js";

const MOST_VERSIONS = 6;

export function Fleet({ query }) {
  const asked = Object.fromEntries(["selector", "group"].flatMap((name) => (query.get(name) ? [[name, query.get(name)]] : [])));
  const chosen = new URLSearchParams(asked).toString();
  const poll = usePoll(`summary ${chosen}`, (signal) => call("GET", `/v1/fleet/summary?${chosen}`, { signal }));
  const fleet = poll.data;
  const [selector, setSelector] = useTyped("selector", asked.selector ?? "");
  return html`
    <${Page} title="Fleet" poll=${poll}>
      <form role="search" class="filters" onSubmit=${(event) => event.preventDefault()}>
        <${SelectorField} value=${selector} problem=${poll.error} onChange=${setSelector} />
        <${GroupChoice} value=${asked.group ?? ""} onChange=${(group) => setQuery({ group })} />
      </form>
      ${fleet && html`<${Figures} fleet=${fleet} chosen=${chosen} />`}
      <${Online} group=${asked.group} selector=${asked.selector} range=${query.get("range") ?? "day"} />
      <${Alerts} />
      <div class="pair">
        ${fleet && html`<${Versions} fleet=${fleet} asked=${asked} />`}
        <${Rollouts} />
      </div>
      <${Latest} />
    <//>
  `;
}

function Figures({ fleet, chosen }) {
  // Links keep the filter.
  const to = (show) => `/devices?${[show && `show=${show}`, chosen].filter(Boolean).join("&")}`;
  const figures = [
    ["Devices", fleet.devices, to(""), ""],
    ["Online", fleet.online, to("online"), "good"],
    ["Silent", fleet.silent, to("silent"), "bad"],
    ["Low battery", fleet.low_battery, to("low_battery"), "warn"],
    ["App down", fleet.unity_down, to("unity_down"), "bad"],
  ];
  return html`
    <ul class="figures">
      ${figures.map(([label, count, to, tone]) => html`
        <li>
          <a href=${to} class=${count ? tone : ""}>
            <span class="label">${label}</span>
            <strong>${number(count)}</strong>
            <span class="muted">${label === "Devices" ? "enrolled" : share(count, fleet.devices)}</span>
          </a>
        </li>
      `)}
    </ul>
  `;
}

const DAY = 86_400_000;
const RANGES = {
  day: { label: "Day", days: 1, step: "hour" },
  week: { label: "Week", days: 7, step: "hour" },
  quarter: { label: "Quarter", days: 91, step: "day" },
};

/** The number of online devices over time, of the fleet or of a group, from the hourly values of the watch. */
function Online({ group, selector, range }) {
  const { days, step } = RANGES[range] ?? RANGES.day;
  const { data, error } = usePoll(`history ${range} ${group}`, (signal) => history(days, step, group, signal), 60);
  const rows = useMemo(() => (data?.points ?? []).map((point) => ({ ...point, ts: middle(point.at, step) })), [data]);
  const most = rows.reduce((highest, { devices }) => Math.max(highest, Math.ceil(devices)), 1);
  const buttons = html`
    <div class="row tight" role="group" aria-label="Time shown">
      ${Object.entries(RANGES).map(([name, { label }]) => html`
        <button type="button" class="small" aria-pressed=${name === range} onClick=${() => setQuery({ range: name === "day" ? null : name })}>${label}</button>
      `)}
    </div>
  `;
  return html`
    <${Section} title="Online over time" actions=${buttons}>
      ${error && html`<p class="muted">${error.message}</p>`}
      ${selector && html`<p class="muted">The history exists for the whole fleet and for groups, not for labels. This is ${group ? `the group ${group}` : "the whole fleet"}.</p>`}
      ${data && html`
        <${Chart} key=${range} title="Online" unit="devices" rows=${rows} name="online" min=${0} max=${most} together="fleet" latest="last" seconds=${days * 86_400}
          at=${step === "day" ? date : instant} none="There are no values for this period yet. The watch writes one per hour." />
      `}
    <//>
  `;
}

function history(days, step, group, signal) {
  const from = new Date(Date.now() - days * DAY).toISOString();
  const query = new URLSearchParams({ from, step, ...(group && { group }) });
  return call("GET", `/v1/fleet/history?${query}`, { signal });
}

/** A day's mean is drawn at noon. */
const middle = (at, step) => (step === "day" ? new Date(Date.parse(at) + DAY / 2).toISOString() : at);

function Versions({ fleet, asked }) {
  const versions = Object.entries(fleet.by_agent_version ?? {}).sort(([, a], [, b]) => b - a);
  const rest = versions.slice(MOST_VERSIONS);
  return html`
    <${Section} title="Agent versions">
      ${versions.length ? "" : html`<${Empty}>No device is enrolled yet. <a href="/enroll">Enroll the first one</a>.<//>`}
      <${VersionList} versions=${versions.slice(0, MOST_VERSIONS)} fleet=${fleet} asked=${asked} />
      ${rest.length > 0 && html`
        <details><summary>${number(rest.length)} more</summary><${VersionList} versions=${rest} fleet=${fleet} asked=${asked} /></details>
      `}
    <//>
  `;
}

const VersionList = ({ versions, fleet, asked }) => html`
  <ul class="versions">
    ${versions.map(([version, count]) => html`
      <li key=${version}>
        <a href="/devices?${new URLSearchParams({ version, ...asked })}">${version}</a>
        <svg class="bar" aria-hidden="true" viewBox="0 0 100 6" preserveAspectRatio="none">
          <rect class="busy" width=${percent(count, fleet.devices)} height="6" />
        </svg>
        <span class="end">${number(count)} <span class="muted">${share(count, fleet.devices)}</span></span>
      </li>
    `)}
  </ul>
`;

function Alerts() {
  const { data } = useAlerts();
  if (!data?.items.length) return null;
  return html`
    <${Section} title="Alerts" actions=${html`<a href="/alerts">All alerts</a>`}>
      <${AlertsTable} alerts=${data.items.slice(0, 5)} />
    <//>
  `;
}

function Rollouts() {
  const { data } = usePoll("builds?current", currentBuilds);
  if (!data?.length) return null;
  return html`
    <${Section} title="Current builds" actions=${html`<a href="/builds">All builds</a>`}>
      <${CurrentBuilds} builds=${data} />
    <//>
  `;
}

async function currentBuilds(signal) {
  const found = [];
  for await (const items of pages("/v1/apk/builds", { current: true }, signal)) found.push(...items);
  return found;
}

function Latest() {
  const { data } = usePoll("commands?latest", (signal) => call("GET", "/v1/commands?limit=8", { signal }));
  if (!data) return null;
  return html`
    <${Section} title="Latest commands" actions=${html`<a href="/commands">All commands</a>`}>
      <${CommandsTable} commands=${data.items} />
    <//>
  `;
}
