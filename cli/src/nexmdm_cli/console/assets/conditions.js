// The conditions that the watch looks for, in words.

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

/** unit: of the threshold; a condition without one takes no threshold. told(detail): what an alert adds. */
export const CONDITIONS = {
  silent: { label: "Silent", told: (d) => (d.last_seen_at ? `last heard ${ago(d.last_seen_at)}` : "never heard") },
  low_battery: { label: "Battery low", unit: "percent", least: 1, most: 100, told: (d) => withUnit(d.battery_pct, "%") },
  high_temperature: {
    label: "Hot",
    unit: "degrees Celsius",
    least: -50,
    most: 150,
    told: (d) => withUnit(d.temp_c, "°C", 1),
  },
  app_down: { label: "App down", unit: "seconds", least: 0, most: 86400, told: (d) => d.package },
  app_background: {
    label: "App not in front",
    unit: "seconds",
    least: 0,
    most: 86400,
    told: (d) => [d.package, d.foreground_seconds == null ? null : duration(d.foreground_seconds)].filter(Boolean).join(", "),
  },
  queue_growing: {
    label: "Heartbeats pile up",
    unit: "reports",
    least: 1,
    most: 100000,
    told: (d) => (d.queue_depth == null ? "" : `${d.queue_depth} waiting`),
  },
  agent_outdated: {
    label: "Agent behind the rollout",
    unit: "hours",
    least: 0,
    most: 8760,
    told: (d) => (d.offered ? `${d.agent_version ?? "unknown"}, offered ${d.offered}` : ""),
  },
  duplicate_identity: {
    label: "Two phones, one identity",
    told: (d) => (d.same_hardware ? `same hardware as ${d.same_hardware}` : "one token"),
  },
  clock_wrong: {
    label: "Clock wrong",
    unit: "seconds",
    least: 60,
    most: 31536000,
    told: (d) => (d.seconds == null ? "" : `by ${duration(Math.abs(d.seconds))}`),
  },
};

export const conditionLabel = (name) => CONDITIONS[name]?.label ?? name.replaceAll("_", " ");

const SYMBOLS = { percent: "%", "degrees Celsius": "°C", seconds: "s", hours: "h" };
export const withUnitOf = (condition, value) => {
  const { unit } = CONDITIONS[condition] ?? {};
  return `${value} ${SYMBOLS[unit] ?? unit ?? ""}`.trim();
};

/** The options of a choice among the conditions; first: what choosing none means. */
export const conditionOptions = (chosen, first) => html`
  ${first && html`<option value="">${first}</option>`}
  ${Object.entries(CONDITIONS).map(([name, { label }]) => html`<option value=${name} selected=${name === chosen}>${label}</option>`)}
`;
