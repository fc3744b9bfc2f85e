// The conditions of alerts, with texts.

import { html } from "/assets/vendor/preact-htm.module.js";
import { ago, duration, withUnit } from "/assets/format.js";

export const SEVERITIES = ["info", "warning", "critical"];
export const SEVERITY_TONES = { critical: "error", warning: "warn", info: "accepted" };

/** The pages about alerts. */
export const ALERT_TABS = [
  ["/alerts", "Alerts"],
  ["/alerts/rules", "Rules"],
  ["/alerts/mutes", "Mutes"],
];

/** {name: {title, unit, least, most}} as declared by the API; without a unit there is no threshold. */
export const CONDITIONS = await (await fetch("/assets/conditions.json")).json();

export const conditionLabel = (name) => CONDITIONS[name]?.title ?? name.replaceAll("_", " ");

/** The text of an alert's detail, for conditions that have one. */
const DETAILS = {
  silent: (d) => (d.last_seen_at ? `last heard from ${ago(d.last_seen_at)}` : "never heard from"),
  low_battery: (d) => withUnit(d.battery_pct, "%"),
  high_temperature: (d) => withUnit(d.temp_c, "°C", 1),
  app_down: (d) => d.package,
  app_background: (d) => `${d.package}, ${duration(d.foreground_seconds)}`,
  queue_growing: (d) => `${d.queue_depth} waiting`,
  agent_outdated: (d) => `${d.agent_version}, offered ${d.offered}`,
  duplicate_identity: (d) => (d.same_hardware ? `same hardware as ${d.same_hardware}` : "shared token"),
  clock_wrong: (d) => `by ${duration(Math.abs(d.seconds))}`,
};

export const detailed = ({ condition, detail }) => (Object.keys(detail ?? {}).length ? DETAILS[condition]?.(detail) : "");

const SYMBOLS = { percent: "%", "degrees Celsius": "°C", seconds: "s", hours: "h" };
export const withUnitOf = (condition, value) => {
  const { unit } = CONDITIONS[condition] ?? {};
  return `${value} ${SYMBOLS[unit] ?? unit ?? ""}`.trim();
};

/** The options of a choice of conditions; first: the text for choosing none. */
export const conditionOptions = (chosen, first) => html`
  ${first && html`<option value="">${first}</option>`}
  ${Object.entries(CONDITIONS).map(([name, { title }]) => html`<option value=${name} selected=${name === chosen}>${title}</option>`)}
`;
